"""Operators that ONNX Runtime had before the standard, under the standard's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.contrib.builder import Builder

    Outputs = list[ir.Value | None]

INT64 = 7


def same(b: Builder, node: ir.Node) -> Outputs:
    """Name, inputs and attributes are those of the standard."""
    attributes = {name: a.value for name, a in node.attributes.items()}
    first = b.op(node.op_type, *node.inputs, outputs=len(node.outputs), **attributes)
    new = first.producer()
    assert new is not None
    return list(new.outputs)


def pad(b: Builder, _: ir.Node) -> Outputs:
    """The pads may be a matrix of one row."""
    pads = b.op("Reshape", b.required(1), b.ints(-1))
    mode = b.attribute("mode", "constant")
    return [b.op("Pad", b.required(0), pads, b.argument(2), mode=mode)]


def expand_dims(b: Builder, _: ir.Node) -> Outputs:
    """Unsqueeze at an axis that is a scalar."""
    axis = b.op("Cast", b.op("Reshape", b.required(1), b.ints(1)), to=INT64)
    return [b.op("Unsqueeze", b.required(0), axis)]


RULES = {
    "Trilu": same,
    "GatherND": same,
    "Range": same,
    "Pad": pad,
    "ExpandDims": expand_dims,
}
