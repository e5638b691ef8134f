"""Nodes that change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule
from passes.graph import replace_value
from passes.match import remove_with_unused
from passes.neutral import passed_through

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class EliminateIdentity(RewriteRule):
    """The users take the input itself.

    Given:  y = Identity(x), Dropout(x) of an inference graph, x + 0, x * 1, or a Reshape,
            Transpose, Cast, Pad, Slice, Flatten, Expand or Concat that provably changes nothing
    Result: x in the place of y
    """

    name: ClassVar[str] = "eliminate-identity"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """An operator in a form that changes nothing."""
        return passed_through(node) is not None

    def check(self, node: ir.Node) -> str | None:
        """An output must keep its name, which an input or an outer value cannot take."""
        value, output = passed_through(node), node.outputs[0]
        assert value is not None
        if not output.is_graph_output():
            return None
        producer = value.producer()
        if producer is None or producer.graph is not node.graph:
            return f"{output.name} is a graph output and {value.name} is not computed in its graph"
        if value.is_graph_output():
            return f"{output.name} and {value.name} are both graph outputs"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Bypass the node."""
        value = passed_through(node)
        assert value is not None
        replace_value(node.outputs[0], value)
        remove_with_unused(node)
