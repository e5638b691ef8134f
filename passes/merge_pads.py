"""Pads after each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import add_initializer
from passes.match import argument, inner, pad_sizes, producer, replace_node, scalar

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class MergePads(RewriteRule):
    """The sizes add up.

    Given:  a = Pad<constant>(x, p, v)   y = Pad<constant>(a, q, v)
    Result: y = Pad<constant>(x, p + q, v)   where neither crops
    """

    name: ClassVar[str] = "merge-pads"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Pad of a Pad."""
        return is_op(node, "Pad") and producer(node.inputs[0], "Pad") is not None

    def check(self, node: ir.Node) -> str | None:
        """Constant sizes and one number to pad with."""
        first = inner(node.inputs[0], node, "Pad")
        if first is None:
            return "others read the first Pad"
        if any(p.attributes.get_string("mode", "constant") != "constant" for p in (first, node)):
            return "they do not pad with a constant"
        if _number(first) is None or _number(first) != _number(node):
            return "they pad with different numbers"
        sizes = [pad_sizes(first), pad_sizes(node)]
        if any(s is None or min(s) < 0 for s in sizes):
            return "the sizes are not constant, or crop"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """One Pad of all axes."""
        first = producer(node.inputs[0], "Pad")
        assert first is not None
        before, after = pad_sizes(first), pad_sizes(node)
        assert before is not None
        assert after is not None
        total = np.array(before, np.int64) + np.array(after, np.int64)
        pads = add_initializer(node.graph, f"{node.outputs[0].name}_pads", total)
        replace_node(node, "Pad", [first.inputs[0], pads, argument(node, 2)])


def _number(pad: ir.Node) -> float | None:
    value = argument(pad, 2)
    return 0.0 if value is None else scalar(value)
