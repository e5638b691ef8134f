"""Slices after each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import add_initializer
from passes.match import argument, inner, ints, producer, rank, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

Range = tuple[int, int, int]


@dataclass(frozen=True)
class MergeSlices(RewriteRule):
    """One Slice along all axes.

    Given:  a = Slice(x, 0, 5, axes=1)   y = Slice(a, 2, 9, axes=2)
    Result: y = Slice(x, [0, 2], [5, 9], axes=[1, 2])
    """

    name: ClassVar[str] = "merge-slices"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Slice of a Slice."""
        return is_op(node, "Slice") and producer(node.inputs[0], "Slice") is not None

    def check(self, node: ir.Node) -> str | None:
        """Constant ranges, of different axes, and nobody else reads the first."""
        first = inner(node.inputs[0], node, "Slice")
        if first is None:
            return "others read the first Slice"
        before, after = _ranges(first), _ranges(node)
        if before is None or after is None:
            return "a range is not constant"
        if before.keys() & after.keys():
            return "both cut the same axis"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Join the ranges."""
        first = producer(node.inputs[0], "Slice")
        assert first is not None
        before, after = _ranges(first), _ranges(node)
        assert before is not None
        assert after is not None
        joined = sorted((before | after).items())
        starts, ends, steps = zip(*(bounds for _, bounds in joined), strict=True)
        axes = [axis for axis, _ in joined]
        name = node.outputs[0].name
        values = [
            add_initializer(node.graph, f"{name}_{what}", np.array(numbers, np.int64))
            for what, numbers in zip(
                ("starts", "ends", "axes", "steps"), (starts, ends, axes, steps), strict=True
            )
        ]
        replace_node(node, "Slice", [first.inputs[0], *values])


def _ranges(node: ir.Node) -> dict[int, Range] | None:
    """Start, end and step of each axis that is cut; axes count from the front."""
    starts, ends, size = ints(argument(node, 1)), ints(argument(node, 2)), rank(node.inputs[0])
    if starts is None or ends is None or size is None:
        return None
    axes = ints(node.inputs[3]) if argument(node, 3) is not None else list(range(len(starts)))
    steps = ints(node.inputs[4]) if argument(node, 4) is not None else [1] * len(starts)
    if axes is None or steps is None:
        return None
    ranges = zip(starts, ends, steps, strict=True)
    return dict(zip((a % size for a in axes), ranges, strict=True))
