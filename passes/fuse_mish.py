"""Mish from its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from passes.match import inner
from passes.product import Fused, FuseProduct, Product


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
