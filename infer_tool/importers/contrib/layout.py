"""Operators that keep channels last: between two Transposes, which the passes move away."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.contrib.builder import Builder

    Outputs = list[ir.Value | None]

POOL = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


def to_first(b: Builder, value: ir.Value, like: ir.Value) -> ir.Value:
    """[N, spatial..., C] to [N, C, spatial...]; `like` knows the rank."""
    rank = b.rank(like)
    return b.op("Transpose", value, perm=[0, rank - 1, *range(1, rank - 1)])


def to_last(b: Builder, value: ir.Value, like: ir.Value) -> ir.Value:
    """And back."""
    rank = b.rank(like)
    return b.op("Transpose", value, perm=[0, *range(2, rank), 1])


def max_pool(b: Builder, node: ir.Node) -> Outputs:
    """MaxPool of 8-bit pictures."""
    attributes = {n: a.value for n, a in node.attributes.items() if n in POOL}
    x = b.required(0)
    return [to_last(b, b.op("MaxPool", to_first(b, x, x), **attributes), x)]


RULES = {"NhwcMaxPool": max_pool}
