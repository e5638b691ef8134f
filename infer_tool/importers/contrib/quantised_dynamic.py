"""Products of 8-bit integers that come out as floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.contrib.builder import Builder, Unexpressible
from infer_tool.importers.contrib.quantised_linear import quantised

if TYPE_CHECKING:
    import onnx_ir as ir

    Outputs = list[ir.Value | None]

FLOAT = 1
MATRIX = 2


def integer_product(
    b: Builder,
    left: ir.Value,
    right: ir.Value,
    scale: ir.Value,
    left_zero: ir.Value | None,
    right_zero: ir.Value | None,
    bias: ir.Value | None = None,
) -> ir.Value:
    """(left - zero) (right - zero) * scale + bias, summed in int32."""
    total = b.op("MatMulInteger", left, right, left_zero, right_zero)
    y = b.op("Mul", b.op("Cast", total, to=FLOAT), scale)
    return y if bias is None else b.op("Add", y, bias)


def dynamic_matmul(b: Builder, _: ir.Node) -> Outputs:
    """The left side is quantised when it is known."""
    first = b.op("DynamicQuantizeLinear", b.required(0), outputs=3)
    node = first.producer()
    assert node is not None
    left, scale, zero = node.outputs
    both = b.op("Mul", scale, b.required(2))
    return [integer_product(b, left, b.required(1), both, zero, b.argument(3), b.argument(4))]


def matmul_to_float(b: Builder, _: ir.Node) -> Outputs:
    """Both sides are quantised; scales may be one for each column."""
    both = b.op("Mul", b.required(2), b.required(3))
    zeros = b.argument(4), b.argument(5)
    return [integer_product(b, b.required(0), b.required(1), both, *zeros, b.argument(6))]


def gemm(b: Builder, _: ir.Node) -> Outputs:
    """alpha A B + C, where C counts in steps of all the scales; quantised if it has a scale."""
    left, right = b.required(0), b.required(3)
    for name, value in (("transA", left), ("transB", right)):
        if b.rank(value) != MATRIX:
            raise Unexpressible
        if b.attribute(name, 0):
            turned = b.op("Transpose", value, perm=[1, 0])
            left, right = (turned, right) if name == "transA" else (left, turned)
    total = b.op("MatMulInteger", left, right, b.argument(2), b.argument(5))
    c = b.argument(6)
    total = total if c is None else b.op("Add", total, c)
    scale = b.op("Mul", b.required(1), b.required(4))
    alpha = b.attribute("alpha", 1.0)
    scale = scale if alpha == 1 else b.op("Mul", scale, b.scalar(alpha, b.required(1)))
    y = b.op("Mul", b.op("Cast", total, to=FLOAT), scale)
    return [y if b.argument(7) is None else quantised(b, y, 7)]


RULES = {
    "DynamicQuantizeMatMul": dynamic_matmul,
    "MatMulIntegerToFloat": matmul_to_float,
    "QGemm": gemm,
}
