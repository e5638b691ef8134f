"""Size and error of every node of a result, for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_tool.report.model import Layer
from passes.compare import difference
from passes.facts import macs_by_node

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")  # their weights are those of who reads them


def layers_of(
    result: ir.Model, source: ir.Model | None = None, feeds: Mapping[str, Any] | None = None
) -> list[Layer]:
    """A row for each node of the main graph with weights or MACs, or with a measured error.

    Args:
        result: the model.
        source: what its inner values are compared with, where names are the same.
        feeds: one run for that comparison; without them there are no errors.

    """
    from infer_tool.engines.intermediates import reference_values

    macs = macs_by_node(result, {n: v.shape for n, v in (feeds or {}).items()} or None)
    errors: dict[str, Any] = {}
    if source is not None and feeds is not None:
        wanted, got = reference_values(source, feeds), reference_values(result, feeds)
        for name, value in wanted.items():
            other = got.get(name)
            if hasattr(value, "shape") and other is not None and other.shape == value.shape:
                errors[name] = difference(value, other)
    rows = [_layer(node, macs, errors) for node in result.graph]
    return [r for r in rows if r.op not in CONVERSIONS and (r.bytes or r.macs or r.max_rel)]


def _layer(node: ir.Node, macs: Mapping[str, int], errors: Mapping[str, Any]) -> Layer:
    names = [v.name or "" for v in node.outputs]
    found = next((errors[name] for name in names if name in errors), None)
    return Layer(
        node=node.name or "?",
        op=node.op_type,
        bytes=weight_bytes(node),
        macs=macs.get(node.name or "", 0),
        engine=None if found is None else "reference",
        max_rel=None if found is None else found.max_rel,
        sqnr_db=None if found is None else found.sqnr_db,
    )


def weight_bytes(node: ir.Node) -> int:
    """Of the initialisers that a node reads, itself or through DequantizeLinear."""
    return sum(_stored(value) for value in node.inputs if value is not None)


def _stored(value: ir.Value) -> int:
    if value.is_initializer() and value.const_value is not None:
        return int(value.const_value.nbytes)
    maker = value.producer()
    if maker is not None and maker.op_type == "DequantizeLinear":
        return sum(_stored(v) for v in maker.inputs if v is not None and v.is_initializer())
    return 0
