"""Relu and Clip after each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import RewriteRule, is_op
from passes.graph import add_initializer
from passes.match import argument, inner, producer, replace_node, scalar

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class MergeClips(RewriteRule):
    """One pair of bounds.

    Given:  a = Relu(x) | Clip(x, l, h)   y = Relu(a) | Clip(a, m, k)
    Result: y = Clip(x, ...), or Relu(x) where 0 is the only bound
    """

    name: ClassVar[str] = "merge-clips"

    def match(self, node: ir.Node) -> bool:
        """Two of them, of which the first serves the second alone."""
        return is_op(node, "Relu", "Clip") and producer(node.inputs[0], "Relu", "Clip") is not None

    def check(self, node: ir.Node) -> str | None:
        """Constant bounds of floats that leave something between them."""
        first = inner(node.inputs[0], node, "Relu", "Clip")
        if first is None:
            return "others read the first result"
        before, after = _bounds(first), _bounds(node)
        if before is None or after is None:
            return "a bound is not constant"
        if node.outputs[0].dtype is None or not node.outputs[0].dtype.is_floating_point():
            return "it does not work on floats"
        return None if before[0] <= before[1] and after[0] <= after[1] else "the bounds are crossed"

    def rewrite(self, node: ir.Node) -> None:
        """Clip the bounds of the first by those of the second."""
        first = producer(node.inputs[0], "Relu", "Clip")
        assert first is not None
        before, after = _bounds(first), _bounds(node)
        assert before is not None
        assert after is not None
        low, high = (min(max(b, after[0]), after[1]) for b in before)
        if (low, high) == (0, math.inf):
            replace_node(node, "Relu", [first.inputs[0]])
            return
        assert node.outputs[0].dtype is not None
        kind, name = node.outputs[0].dtype.numpy(), node.outputs[0].name
        values = [
            add_initializer(node.graph, f"{name}_{what}", np.array(b, kind))
            if math.isfinite(b)
            else None
            for what, b in (("min", low), ("max", high))
        ]
        replace_node(node, "Clip", [first.inputs[0], *values])


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    if is_op(node, "Relu"):
        return 0.0, math.inf
    low, high = argument(node, 1), argument(node, 2)
    found = (
        -math.inf if low is None else scalar(low),
        math.inf if high is None else scalar(high),
    )
    if found[0] is None or found[1] is None or math.isnan(found[0] + found[1]):
        return None
    return found[0], found[1]
