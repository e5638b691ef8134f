"""Expands before operators that broadcast by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op
from passes.match import dims, remove_with_unused
from passes.traits import is_broadcasting

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class EliminateExpand(RewriteRule):
    """The other operand has the full shape already.

    Given:  e = Expand(x, s)   y = Div(z, e)   e and z of the same shape
    Result: y = Div(z, x)
    """

    name: ClassVar[str] = "eliminate-expand"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """An Expand that something in its graph reads."""
        return is_op(node, "Expand") and bool(node.outputs[0].uses())

    def check(self, node: ir.Node) -> str | None:
        """Every user broadcasts to the same shape without it."""
        value = node.outputs[0]
        wanted = dims(value)
        if value.is_graph_output():
            return f"{value.name} is a graph output"
        if wanted is None or None in wanted:
            return "its shape is not known"
        for user, _ in value.uses():
            others = [v for v in user.inputs if v is not value]
            if not is_broadcasting(user) or not any(dims(v) == wanted for v in others):
                return f"{user.name} needs the full shape"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Bypass the node."""
        source = node.inputs[0]
        assert source is not None
        node.outputs[0].replace_all_uses_with(source)
        remove_with_unused(node)
