"""Cheaper operators with the same result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from passes.base import RewriteRule, is_op
from passes.graph import add_initializer, constant
from passes.match import only_user, replace_node, scalar

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class ReduceStrength(RewriteRule):
    """Only where no bit changes: squares, and divisors whose reciprocal is exact.

    Given:  y = Pow(x, 2)      y = Div(x, k)   k: powers of two
    Result: y = Mul(x, x)      y = Mul(x, 1 / k)
    """

    name: ClassVar[str] = "reduce-strength"

    def match(self, node: ir.Node) -> bool:
        """A square, or a division by a constant."""
        if is_op(node, "Pow"):
            return scalar(node.inputs[1]) == 2
        return is_op(node, "Div") and constant(node.inputs[1]) is not None

    def check(self, node: ir.Node) -> str | None:
        """Floats, of one type, in the shape of the first operand."""
        kind = node.outputs[0].dtype
        if kind is None or not kind.is_floating_point():
            return "it does not work on floats"
        first, second = node.inputs[0], node.inputs[1]
        assert first is not None
        assert second is not None
        if is_op(node, "Pow"):
            if is_op(only_user(node.outputs[0]), "ReduceMean"):
                return "engines look for this power in a normalisation"
            wide = second.shape is None or len(second.shape) > 0
            unknown = first.shape is None or len(first.shape) == 0
            return "the exponent may widen the result" if wide and unknown else None
        divisor = constant(second)
        assert divisor is not None
        return None if _is_exact(divisor) else "the reciprocal is rounded"

    def rewrite(self, node: ir.Node) -> None:
        """Multiply."""
        if is_op(node, "Pow"):
            replace_node(node, "Mul", [node.inputs[0], node.inputs[0]])
            return
        divisor = constant(node.inputs[1])
        assert divisor is not None
        name = f"{node.outputs[0].name}_reciprocal"
        value = add_initializer(node.graph, name, np.asarray(1 / divisor, divisor.dtype))
        replace_node(node, "Mul", [node.inputs[0], value])


def _is_exact(divisor: np.ndarray[Any, Any]) -> bool:
    """Powers of two whose reciprocals are normal numbers of the type."""
    if divisor.dtype.kind != "f" or not np.all(np.isfinite(divisor)) or not np.all(divisor):
        return False
    mantissa, _ = np.frexp(divisor)
    with np.errstate(all="ignore"):
        reciprocal = np.abs(1 / divisor)
    limits = np.finfo(divisor.dtype)
    in_range = (reciprocal >= limits.tiny) & (reciprocal <= limits.max)
    return bool(np.all(np.abs(mantissa) == 0.5) and np.all(in_range))
