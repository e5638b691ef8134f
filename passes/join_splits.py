"""Split and Concat that undo each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import replace_value
from passes.match import dims, producer, rank, remove_with_unused

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir


@dataclass(frozen=True)
class JoinSplits(RewriteRule):
    """All pieces in their order are the whole.

    Given:  a, b = Split<k>(x)   y = Concat<k>(a, b)
    Result: x in the place of y
    """

    name: ClassVar[str] = "join-splits"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Concat that begins with a piece."""
        return is_op(node, "Concat") and producer(node.inputs[0], "Split") is not None

    def check(self, node: ir.Node) -> str | None:
        """Every piece once, along the same axis."""
        split = producer(node.inputs[0], "Split")
        assert split is not None
        if tuple(node.inputs) != tuple(split.outputs):
            return "it does not join all pieces in their order"
        if _axis(split, rank(node.inputs[0])) != _axis(node, rank(node.inputs[0])):
            return "the axes differ"
        return _output_reason(node)

    def rewrite(self, node: ir.Node) -> None:
        """Who reads the Concat reads what was split."""
        split = producer(node.inputs[0], "Split")
        assert split is not None
        assert split.inputs[0] is not None
        replace_value(node.outputs[0], split.inputs[0])
        remove_with_unused(node)


@dataclass(frozen=True)
class SplitJoins(RewriteRule):
    """The pieces are there already.

    Given:  a = Concat<k>(x, y)   u, v = Split<k>(a)   of the sizes of x and y
    Result: x and y in the place of u and v
    """

    name: ClassVar[str] = "split-joins"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Split of a Concat."""
        return is_op(node, "Split") and producer(node.inputs[0], "Concat") is not None

    def check(self, node: ir.Node) -> str | None:
        """Pieces of the same sizes along the same axis."""
        join = producer(node.inputs[0], "Concat")
        assert join is not None
        axis = _axis(node, rank(node.inputs[0]))
        if axis is None or axis != _axis(join, rank(node.inputs[0])):
            return "the axes differ"
        before, after = (_sizes(values, axis) for values in (join.inputs, node.outputs))
        if None in before or before != after:
            return "the pieces are not known to be those that were joined"
        if any(o.is_graph_output() for o in node.outputs):
            return "a piece is a graph output"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Who reads a piece reads what was joined."""
        join = producer(node.inputs[0], "Concat")
        assert join is not None
        for piece, source in zip(node.outputs, join.inputs, strict=True):
            assert source is not None
            replace_value(piece, source)
        remove_with_unused(node)


def _output_reason(node: ir.Node) -> str | None:
    return "it computes a graph output" if node.outputs[0].is_graph_output() else None


def _axis(node: ir.Node, size: int | None) -> int | None:
    axis = node.attributes.get_int("axis", 0)
    return axis if axis >= 0 or size is None else axis + size


def _sizes(values: Sequence[ir.Value | None], axis: int) -> list[int | None]:
    """Numbers along an axis; names of dynamic dimensions are no proof of where a piece begins."""
    known = [dims(value) for value in values]
    sizes = [None if d is None else d[axis] for d in known]
    return [size if isinstance(size, int) else None for size in sizes]
