"""HardSwish from its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.fuse_hard_sigmoid import clipped_line
from passes.match import close, inner
from passes.product import Factor, Fused, FuseProduct, Product

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FuseHardSwish(FuseProduct):
    """x times the HardSigmoid of x with alpha 1/6 and beta 1/2.

    Given:  y = x * Clip(x + 3, 0, 6) / 6   or   y = x * HardSigmoid<1/6, 1/2>(x)
    Result: y = HardSwish(x)
    """

    name: ClassVar[str] = "fuse-hard-swish"
    since: ClassVar[int] = 14

    def fused(self, found: Product) -> Fused | None:
        """Two factors, in any order."""
        if len(found.factors) != 2:
            return None
        for gate in found.factors:
            (value,) = found.but(gate)
            if _is_gate(gate, value, found.scale):
                return "HardSwish", value, {}
        return None


def _is_gate(gate: Factor, value: ir.Value, scale: float) -> bool:
    line = clipped_line(gate.value, gate.user)
    if line is not None:
        return line == (value, 3.0, 6.0) and close(scale, 1 / 6)
    node = inner(gate.value, gate.user, "HardSigmoid")
    if node is None or node.inputs[0] is not value or not close(scale, 1):
        return False
    alpha = node.attributes.get_float("alpha", 0.2)
    return close(alpha, 1 / 6) and close(node.attributes.get_float("beta", 0.5), 0.5)
