"""Scales that stand behind a change of shape, moved to the linear node they can fold into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.graph import constant, take_description
from passes.match import inner, rank
from passes.weights import absorb, foldable_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

MOVING = ("Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class LiftScales(RewriteRule):
    """One factor for all elements does not care where they lie.

    Given:  c = Conv | ConvTranspose | Gemm | MatMul (x, W)
            r = Reshape | Squeeze | Unsqueeze | Flatten | Transpose (c), or several of them
            y = Neg(r) | Mul(r, k) | Div(r, k)   k: one number
    Result: y = Reshape(Neg(c))
    """

    name: ClassVar[str] = "lift-scales"

    def match(self, node: ir.Node) -> bool:
        """A change of sign or scale of a moved value."""
        value = _scaled(node)
        return value is not None and inner(value, node, *MOVING) is not None

    def check(self, node: ir.Node) -> str | None:
        """Nobody else reads what stands between, and the linear node can take the factor."""
        movers = _movers(node)
        linear = movers[-1].inputs[0]
        assert linear is not None
        if any(m.graph is not node.graph for m in movers):
            return "the nodes are in different graphs"
        for value in node.inputs:
            if value is not _scaled(node) and (rank(value) or 0) > (rank(linear) or 0):
                return f"{value.name if value else ''} has more dimensions than the linear node"
        return foldable_reason(linear.producer(), movers[-1])

    def rewrite(self, node: ir.Node) -> None:
        """The same node, first; what moves takes over the output."""
        movers = _movers(node)
        source, moved = movers[-1].inputs[0], _scaled(node)
        assert source is not None
        inputs = [source if value is moved else value for value in node.inputs]
        scaled = ir.node(node.op_type, inputs, name=node.name)
        take_description(scaled.outputs[0], source)
        scaled.outputs[0].name = f"{node.outputs[0].name}_before"
        assert node.graph is not None
        node.graph.insert_before(movers[-1], scaled)
        movers[-1].replace_input_with(0, scaled.outputs[0])
        absorb(movers[0], node)


def _scaled(node: ir.Node) -> ir.Value | None:
    """What the node multiplies by one number."""
    if is_op(node, "Neg"):
        return node.inputs[0]
    if not is_op(node, "Mul", "Div"):
        return None
    sides = [(0, 1), (1, 0)] if is_op(node, "Mul") else [(0, 1)]
    for side, other in sides:
        factor = constant(node.inputs[other])
        if factor is not None and factor.size == 1:
            return node.inputs[side]
    return None


def _movers(node: ir.Node) -> Sequence[ir.Node]:
    """From the scale back to the linear node."""
    found: list[ir.Node] = []
    value, user = _scaled(node), node
    while (mover := inner(value, user, *MOVING)) is not None:
        found.append(mover)
        value, user = mover.inputs[0], mover
    return found
