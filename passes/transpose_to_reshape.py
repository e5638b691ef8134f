"""A Transpose that moves no data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op
from passes.fold_reshapes import constant_target, to_reshape
from passes.match import dims
from passes.merge_reshapes import keeps_order

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class TransposeToReshape(RewriteRule):
    """Moving axes of size 1 is a change of shape alone, which engines do without copying.

    Given:  y = Transpose<perm=[0, 2, 3, 1]>(x)   x: [N, 8, 1, 1]
    Result: y = Reshape(x, [0, 1, 1, 8])
    """

    name: ClassVar[str] = "transpose-to-reshape"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Transpose that keeps all elements in their order."""
        return is_op(node, "Transpose") and keeps_order(node)

    def check(self, node: ir.Node) -> str | None:
        """The new shape can be written down."""
        return None if _target(node) is not None else "the shape is not known well enough"

    def rewrite(self, node: ir.Node) -> None:
        """Replace the node."""
        target = _target(node)
        assert target is not None
        to_reshape(node, node.inputs[0], target)


def _target(node: ir.Node) -> list[int] | None:
    after = dims(node.outputs[0])
    return None if after is None else constant_target(dims(node.inputs[0]), after)
