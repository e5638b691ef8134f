"""A pass: two negations are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class DoubleNegation(RewriteRule):
    """Negating changes one bit; twice changes none.

    Given:  y = Neg(Neg(x))
    Result: y = Identity(x)
    """

    name: ClassVar[str] = "double-negation"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Neg of a Neg."""
        first = node.inputs[0] if is_op(node, "Neg") else None
        return first is not None and is_op(first.producer(), "Neg")

    def check(self, node: ir.Node) -> str | None:
        """It is always allowed."""
        return None

    def rewrite(self, node: ir.Node) -> None:
        """The second Neg becomes an Identity of what the first one read."""
        inner = node.inputs[0]
        assert inner is not None
        maker = inner.producer()
        assert maker is not None
        node.replace_input_with(0, maker.inputs[0])
        node.op_type = "Identity"
