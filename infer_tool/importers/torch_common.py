"""From an ExportedProgram to onnx_ir, and the program itself as the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime.errors import InferError, ModelError
from infer_tool.importers import Imported
from infer_tool.importers.normalise import OPSET, normalise, quiet
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from infer_tool.importers import Outputs


def import_program(program: Any, source: str, kind: str, path: Path | None) -> Imported:
    """Convert with torch's own exporter, check what it says it did, keep the program to compare.

    Raises:
        ModelError: the exporter fails, naming its reason, or reaches another opset.

    """
    import torch

    try:
        with quiet():
            exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    except Exception as error:
        # torch raises classes of many packages here; all of them mean that it cannot convert.
        raise ModelError(f"{source}: torch cannot convert it: {reason(error)}") from error
    assert exported is not None
    model: ir.Model = exported.model
    if opset(model) != OPSET:
        raise ModelError(f"{source}: torch wrote opset {opset(model)}, asked for {OPSET}")
    outputs = [v.name or "" for v in model.graph.outputs]
    inputs = [v.name or "" for v in model.graph.inputs]
    return Imported(
        normalise(model, source), kind, path, _ProgramReference(program, inputs, outputs)
    )


class _ProgramReference:
    """Runs the exported program on NumPy feeds."""

    def __init__(self, program: Any, inputs: list[str], outputs: list[str]) -> None:
        self._program = program
        self._inputs, self._outputs = inputs, outputs
        self._module: Any = None

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        import torch
        from torch.utils import _pytree as pytree

        if self._module is None:
            self._module = self._program.module()
        tensors = [torch.from_numpy(feeds[name].copy()) for name in self._inputs]
        arguments, keywords = pytree.tree_unflatten(tensors, self._program.call_spec.in_spec)
        try:
            with torch.no_grad():
                result = self._module(*arguments, **keywords)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"torch cannot run the program: {reason(error)}") from error
        values = [v for v in pytree.tree_leaves(result) if isinstance(v, torch.Tensor)]
        return {
            name: value.detach().cpu().numpy()
            for name, value in zip(self._outputs, values, strict=True)
        }


def reason(error: BaseException) -> str:
    """The first line of the innermost message: the outer ones only say that something failed."""
    while error.__cause__ is not None and not isinstance(error, InferError):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
