"""Gelu from its parts, exact or by tanh."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.match import close, inner, producer, scalar
from passes.product import Factor, Fused, FuseProduct, Product, plus, product

if TYPE_CHECKING:
    import onnx_ir as ir

CUBIC = 0.044715


@dataclass(frozen=True)
class FuseGelu(FuseProduct):
    """Half of x times one plus a sigmoid curve.

    Given:  y = 0.5 * x * (1 + Erf(x / sqrt(2)))
            or y = 0.5 * x * (1 + Tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))
    Result: y = Gelu(x)   or   y = Gelu<approximate="tanh">(x)
    """

    name: ClassVar[str] = "fuse-gelu"
    since: ClassVar[int] = 20

    def fused(self, found: Product) -> Fused | None:
        """Two factors and one half, in any order."""
        if len(found.factors) != 2 or not close(found.scale, 0.5):
            return None
        for gate in found.factors:
            (value,) = found.but(gate)
            if (kind := _kind(gate, value)) is not None:
                return "Gelu", value, {"approximate": kind}
        return None


def _kind(gate: Factor, value: ir.Value) -> str | None:
    """The attribute `approximate`; None when the factor is no such curve of `value`."""
    sum_ = plus(gate.value, gate.user)
    if sum_ is None or sum_[1] != 1:
        return None
    curve = inner(sum_[0], sum_[2], "Erf", "Tanh")
    if curve is None:
        return None
    argument = product(inner(curve.inputs[0], curve, "Mul", "Div"))
    if argument is None or len(argument.factors) != 1:
        return None
    (factor,) = argument.factors
    if curve.op_type == "Erf":
        return "none" if factor.value is value and close(argument.scale, math.sqrt(0.5)) else None
    fits = close(argument.scale, math.sqrt(2 / math.pi)) and _is_cubic(factor, value)
    return "tanh" if fits else None


def _is_cubic(factor: Factor, value: ir.Value) -> bool:
    """Is it value + 0.044715 * value^3?"""
    node = inner(factor.value, factor.user, "Add")
    if node is None or value not in node.inputs:
        return False
    (other,) = [v for v in node.inputs if v is not value] or [None]
    term = product(inner(other, node, "Mul", "Div"))
    if term is None or not close(term.scale, CUBIC):
        return False
    power = sum(_power(f.value, value) for f in term.factors)
    return power == 3


def _power(factor: ir.Value, value: ir.Value) -> float:
    """The exponent of `value` in a factor; one that nothing adds up to 3 with, for others."""
    if factor is value:
        return 1
    node = producer(factor, "Pow")
    exponent = scalar(node.inputs[1]) if node is not None and node.inputs[0] is value else None
    return -100 if exponent is None else exponent
