"""MatMul and Add of matrices as one Gemm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.match import dims, inner, producer, replace_node

if TYPE_CHECKING:
    from passes.match import Dims

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
MATRIX = 2


@dataclass(frozen=True)
class MatMulToGemm(RewriteRule):
    """A product with a bias is one node.

    Given:  m = MatMul(a, b)   y = Add(m, c)   a: [M, K], b: [K, N], c broadcast to [M, N]
    Result: y = Gemm(a, b, c)
    """

    name: ClassVar[str] = "matmul-to-gemm"

    def match(self, node: ir.Node) -> bool:
        """An Add of a MatMul."""
        return is_op(node, "Add") and any(producer(v, "MatMul") for v in node.inputs)

    def check(self, node: ir.Node) -> str | None:
        """Matrices of floats, and a bias that does not widen the product."""
        product, bias = _operands(node)
        if product is None:
            return "others read the product"
        a, b = (dims(v) for v in product.inputs[:2])
        if a is None or b is None or len(a) != MATRIX or len(b) != MATRIX:
            return "the factors are not both matrices"
        if node.outputs[0].dtype not in FLOATS:
            return "Gemm does not take this type everywhere"
        if not _fits(dims(bias), (a[0], b[1])):
            return "the other operand may be larger than the product"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """One Gemm."""
        product, bias = _operands(node)
        assert product is not None
        replace_node(node, "Gemm", [*product.inputs, bias])


def _operands(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    for value, other in (node.inputs[:2], node.inputs[1::-1]):
        product = inner(value, node, "MatMul")
        if product is not None and value is not other:
            return product, other
    return None, None


def _fits(bias: Dims | None, result: Dims) -> bool:
    if bias is None or len(bias) > MATRIX:
        return False
    pairs = zip(reversed(bias), reversed(result), strict=False)
    return all(b == 1 or (b is not None and b == r) for b, r in pairs)
