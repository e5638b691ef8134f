"""Convolutions and products with what ONNX Runtime fuses into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.contrib.activations import activate
from infer_tool.importers.contrib.builder import Builder, Unexpressible

if TYPE_CHECKING:
    import onnx_ir as ir

    Outputs = list[ir.Value | None]

CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def fused_conv(b: Builder, node: ir.Node) -> Outputs:
    """activation(Conv(x) + z)."""
    attributes = {k: a.value for k, a in node.attributes.items() if k in CONV}
    y = b.op("Conv", b.required(0), b.required(1), b.argument(2), **attributes)
    z = b.argument(3)
    y = y if z is None else b.op("Add", y, z)
    parameters = list(b.attribute("activation_params", []))
    return [activate(b, y, b.attribute("activation", ""), parameters)]


def fused_matmul(b: Builder, _: ir.Node) -> Outputs:
    """Alpha A B with the last two axes of either exchanged first."""
    if b.attribute("transBatchA", 0) or b.attribute("transBatchB", 0):
        raise Unexpressible
    sides = (b.required(0), "transA"), (b.required(1), "transB")
    left, right = (exchanged(b, v) if b.attribute(name, 0) else v for v, name in sides)
    y, alpha = b.op("MatMul", left, right), b.attribute("alpha", 1.0)
    return [y if alpha == 1 else b.op("Mul", y, b.scalar(alpha, left))]


def exchanged(b: Builder, value: ir.Value) -> ir.Value:
    """The transpose of the last two axes; of a vector it is itself."""
    rank = b.rank(value)
    order = [*range(rank - 2), rank - 1, rank - 2]
    return value if rank < 2 else b.op("Transpose", value, perm=order)


def fused_gemm(b: Builder, _: ir.Node) -> Outputs:
    """activation(alpha A B + beta C)."""
    names = ("alpha", "beta", "transA", "transB")
    attributes = {n: b.attribute(n, None) for n in names if b.attribute(n, None) is not None}
    y = b.op("Gemm", b.required(0), b.required(1), b.argument(2), **attributes)
    given = (b.attribute(f"activation_{n}", None) for n in ("alpha", "beta", "gamma"))
    parameters = [p for p in given if p is not None]
    return [activate(b, y, b.attribute("activation", ""), parameters)]


RULES = {
    "FusedConv": fused_conv,
    "FusedMatMul": fused_matmul,
    "TransposeMatMul": fused_matmul,
    "FusedGemm": fused_gemm,
}
