"""Mish and Swish from their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from passes.match import close, inner
from passes.product import Fused, FuseProduct, Product, product


@dataclass(frozen=True)
class FuseMish(FuseProduct):
    """x gated by the tanh of its softplus.

    Given:  y = x * Tanh(Softplus(x))
    Result: y = Mish(x)
    """

    name: ClassVar[str] = "fuse-mish"
    since: ClassVar[int] = 18

    def fused(self, found: Product) -> Fused | None:
        """Two factors, in any order."""
        if len(found.factors) != 2 or found.scale != 1:
            return None
        for gate in found.factors:
            (value,) = found.but(gate)
            tanh = inner(gate.value, gate.user, "Tanh")
            softplus = None if tanh is None else inner(tanh.inputs[0], tanh, "Softplus")
            if softplus is not None and softplus.inputs[0] is value:
                return "Mish", value, {}
        return None


@dataclass(frozen=True)
class FuseSwish(FuseProduct):
    """x gated by its sigmoid. The opset is not raised for it.

    Given:  y = x * Sigmoid(a * x)
    Result: y = Swish<alpha=a>(x)
    """

    name: ClassVar[str] = "fuse-swish"
    since: ClassVar[int] = 24

    def fused(self, found: Product) -> Fused | None:
        """Two factors, in any order."""
        if len(found.factors) != 2 or not close(found.scale, 1):
            return None
        for gate in found.factors:
            (value,) = found.but(gate)
            sigmoid = inner(gate.value, gate.user, "Sigmoid")
            if sigmoid is None:
                continue
            if sigmoid.inputs[0] is value:
                return "Swish", value, {"alpha": 1.0}
            scaled = product(inner(sigmoid.inputs[0], sigmoid, "Mul", "Div"))
            if scaled is not None and [f.value for f in scaled.factors] == [value]:
                return "Swish", value, {"alpha": scaled.scale}
        return None
