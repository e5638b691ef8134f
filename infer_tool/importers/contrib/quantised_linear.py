"""Operators between 8-bit tensors: what they mean is dequantise, compute, quantise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_tool.importers.contrib.builder import Builder, Unexpressible
from infer_tool.importers.contrib.layout import to_first, to_last

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    Outputs = list[ir.Value | None]

POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
PLAIN_SOFTMAX = 13  # the opset from which on softmax runs over one axis


def scalar_of(b: Builder, value: ir.Value) -> ir.Value:
    """A scale or zero point of the whole tensor: the standard wants a scalar, not one element."""
    rank = b.rank(value)
    if rank == 0:
        return value
    if rank > 1 or value.shape is None or value.shape[0] != 1:
        raise Unexpressible
    return b.op("Reshape", value, b.const(np.zeros(0, np.int64)))


def dequantised(b: Builder, at: int) -> ir.Value:
    """Three inputs from `at` on: a tensor, its scale, its zero point."""
    zero = b.argument(at + 2)
    scale = scalar_of(b, b.required(at + 1))
    return b.op(
        "DequantizeLinear", b.required(at), scale, None if zero is None else scalar_of(b, zero)
    )


def quantised(b: Builder, value: ir.Value, at: int) -> ir.Value:
    """With the scale and zero point at `at`; without a zero point it is that of uint8."""
    zero = b.argument(at + 1)
    scale = scalar_of(b, b.required(at))
    return b.op("QuantizeLinear", value, scale, None if zero is None else scalar_of(b, zero))


def binary(op_type: str) -> Callable[[Builder, ir.Node], Outputs]:
    """QLinearAdd and QLinearMul."""

    def rule(b: Builder, _: ir.Node) -> Outputs:
        return [quantised(b, b.op(op_type, dequantised(b, 0), dequantised(b, 3)), 6)]

    return rule


def unary(op_type: str, *names: str) -> Callable[[Builder, ir.Node], Outputs]:
    """Of one tensor, with attributes of these names."""

    def rule(b: Builder, node: ir.Node) -> Outputs:
        attributes = {n: a.value for n, a in node.attributes.items() if n in names}
        return [quantised(b, b.op(op_type, dequantised(b, 0), **attributes), 3)]

    return rule


def pool(op_type: str, *names: str) -> Callable[[Builder, ir.Node], Outputs]:
    """Of pictures, with their channels first or last."""

    def rule(b: Builder, node: ir.Node) -> Outputs:
        attributes = {n: a.value for n, a in node.attributes.items() if n in names}
        last = bool(b.attribute("channels_last", 0))
        x = dequantised(b, 0)
        x = to_first(b, x, b.required(0)) if last else x
        y = b.op(op_type, x, **attributes)
        y = to_last(b, y, b.required(0)) if last else y
        return [quantised(b, y, 3)]

    return rule


def concat(b: Builder, node: ir.Node) -> Outputs:
    """The output's scale and zero point, then three inputs for each part."""
    if (len(node.inputs) - 2) % 3:
        raise Unexpressible
    parts = [dequantised(b, at) for at in range(2, len(node.inputs), 3)]
    return [quantised(b, b.op("Concat", *parts, axis=b.attribute("axis", 0)), 0)]


def softmax(b: Builder, _: ir.Node) -> Outputs:
    """Over one axis; the older one over all axes from there on is the same at the last."""
    axis, rank = b.attribute("axis", -1), b.rank(b.required(0))
    if b.attribute("opset", PLAIN_SOFTMAX) < PLAIN_SOFTMAX and axis % rank != rank - 1:
        raise Unexpressible
    return [quantised(b, b.op("Softmax", dequantised(b, 0), axis=axis), 3)]


def where(b: Builder, _: ir.Node) -> Outputs:
    """A condition, then two tensors."""
    return [quantised(b, b.op("Where", b.required(0), dequantised(b, 1), dequantised(b, 4)), 7)]


def conv(b: Builder, node: ir.Node) -> Outputs:
    """QLinearConv of the standard, with the channels last."""
    last = bool(b.attribute("channels_last", 0))
    attributes = {n: a.value for n, a in node.attributes.items() if n != "channels_last"}
    x, *others = node.inputs
    first = to_first(b, b.required(0), b.required(0)) if last else x
    y = b.op("QLinearConv", first, *others, **attributes)
    return [to_last(b, y, b.required(0)) if last else y]


RULES = {
    "QLinearAdd": binary("Add"),
    "QLinearMul": binary("Mul"),
    "QLinearSigmoid": unary("Sigmoid"),
    "QLinearLeakyRelu": unary("LeakyRelu", "alpha"),
    "QLinearAveragePool": pool("AveragePool", *POOL),
    "QLinearGlobalAveragePool": pool("GlobalAveragePool"),
    "QLinearConcat": concat,
    "QLinearSoftmax": softmax,
    "QLinearWhere": where,
    "QLinearConv": conv,
}
