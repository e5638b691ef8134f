"""Transposes after each other, and those that only move axes of size 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op
from passes.match import producer, rank, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class MergeTransposes(RewriteRule):
    """One permutation; it is the identity where they cancel.

    Given:  a = Transpose<p>(x)   y = Transpose<q>(a)
    Result: y = Transpose<p after q>(x)
    """

    name: ClassVar[str] = "merge-transposes"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Transpose of a Transpose."""
        return is_op(node, "Transpose") and producer(node.inputs[0], "Transpose") is not None

    def check(self, node: ir.Node) -> str | None:
        """Both permutations are known; whoever else reads the first keeps it."""
        first = producer(node.inputs[0], "Transpose")
        assert first is not None
        if permutation(node) is None or permutation(first) is None:
            return "a permutation is not known"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Compose."""
        first = producer(node.inputs[0], "Transpose")
        assert first is not None
        inner, outer = permutation(first), permutation(node)
        assert inner is not None
        assert outer is not None
        replace_node(node, "Transpose", [first.inputs[0]], {"perm": [inner[i] for i in outer]})


def permutation(node: ir.Node) -> list[int] | None:
    """Of a Transpose; without the attribute the axes are reversed."""
    perm = node.attributes.get_ints("perm", None)
    if perm is not None:
        return [int(i) for i in perm]
    size = rank(node.inputs[0])
    return None if size is None else list(reversed(range(size)))
