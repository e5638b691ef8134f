"""The states of a model: which inputs take which outputs of the step before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers import Imported


def state_table(imported: Imported) -> dict[str, Any]:
    """A table for the report; nothing for a model without states."""
    if not imported.states:
        return {}
    inputs = {value.name: value for value in imported.model.graph.inputs}
    rows = [[name, output, *_described(inputs[name])] for name, output in imported.states.items()]
    columns = ["state input", "takes the output", "shape", "dtype", "first value"]
    return {"States": {"columns": columns, "rows": rows}}


def _described(value: ir.Value) -> list[str]:
    assert value.const_value is not None
    array = value.const_value.numpy()
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    first = f"all {low}" if low == high else f"{low} to {high}"
    return ["x".join(str(d) for d in value.shape or ()), array.dtype.name, first]
