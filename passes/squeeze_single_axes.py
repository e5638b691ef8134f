"""Operators that take the only element along an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import add_initializer
from passes.match import argument, dims, ints, replace_node, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")


@dataclass(frozen=True)
class SqueezeSingleAxes(RewriteRule):
    """What has one element is its own mean, sum and maximum.

    Given:  y = Gather<axis=a>(x, 0)   or   y = ReduceMean(x, a)   axis a of x has size 1
    Result: y = Squeeze(x, a)          or, with keepdims, y = Identity(x)
    """

    name: ClassVar[str] = "squeeze-single-axes"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A reduction, or a Gather by a constant number."""
        if is_op(node, "Gather"):
            return scalar(node.inputs[1]) is not None
        return is_op(node, *REDUCTIONS)

    def check(self, node: ir.Node) -> str | None:
        """All axes that go are known to have size 1."""
        axes, sizes = _axes(node), dims(node.inputs[0])
        if not axes or sizes is None:
            return "its axes or the shape of its input are not known"
        return None if all(sizes[a] == 1 for a in axes) else "an axis may be longer than 1"

    def rewrite(self, node: ir.Node) -> None:
        """Only the shape changes."""
        axes = _axes(node)
        if is_op(node, *REDUCTIONS) and bool(node.attributes.get_int("keepdims", 1)):
            replace_node(node, "Identity", node.inputs[:1])
            return
        name = f"{node.outputs[0].name}_axes"
        value = add_initializer(node.graph, name, np.array(axes, np.int64))
        replace_node(node, "Squeeze", [node.inputs[0], value])


def _axes(node: ir.Node) -> list[int] | None:
    """The axes that go; a Gather of one element by a vector keeps its axis."""
    if is_op(node, *REDUCTIONS):
        return ints(argument(node, 1))
    index = node.inputs[1]
    is_number = index is not None and index.shape is not None and len(index.shape) == 0
    return (
        [node.attributes.get_int("axis", 0)] if is_number and ints(index) in ([0], [-1]) else None
    )
