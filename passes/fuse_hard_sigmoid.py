"""HardSigmoid from its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.match import argument, close, inner, scalar
from passes.product import Fused, FuseProduct, Product, plus

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FuseHardSigmoid(FuseProduct):
    """A clipped line.

    Given:  y = Clip(x + b, 0, c) / c
    Result: y = HardSigmoid<alpha=1/c, beta=b/c>(x)
    """

    name: ClassVar[str] = "fuse-hard-sigmoid"

    def fused(self, found: Product) -> Fused | None:
        """One factor, scaled to 1."""
        if len(found.factors) != 1:
            return None
        line = clipped_line(found.factors[0].value, found.factors[0].user)
        if line is None or not close(line[2] * found.scale, 1):
            return None
        value, shift, _ = line
        return "HardSigmoid", value, {"alpha": found.scale, "beta": shift * found.scale}


def clipped_line(value: ir.Value, user: ir.Node) -> tuple[ir.Value, float, float] | None:
    """Of Clip(x + b, 0, c), read by `user` alone: x, b and c."""
    clip = inner(value, user, "Clip")
    if clip is None or scalar(argument(clip, 1)) != 0:
        return None
    line, limit = plus(clip.inputs[0], clip), scalar(argument(clip, 2))
    return None if line is None or limit is None else (line[0], line[1], limit)
