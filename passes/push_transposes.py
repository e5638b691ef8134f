"""Transposes that meet again behind operators which work in any order of the axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import RewriteRule, is_op
from passes.merge_transposes import permutation
from passes.permutations import inverse
from passes.regions import find_region
from passes.turn_region import turn_region

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx_ir as ir

    from passes.base import Outcome
    from passes.regions import Looked, Region


@dataclass(frozen=True)
class PushTransposes(RewriteRule):
    """Work in the order of axes that needs the fewest Transposes, then the smallest ones.

    What lies between Transposes is one region: elementwise operators, Concat, Split, Slice, Pad,
    Resize, reductions, Softmax, QuantizeLinear ... Each node of it works in one of two orders. A
    Transpose stands where a value is computed in one and read in the other, so that the best
    choice is a minimal cut.

    Given:  a = Transpose<p>(x)   b = Relu(a)   y = Transpose<inverse of p>(b)
    Result: y = Relu(x)
    """

    name: ClassVar[str] = "push-transposes"
    since: ClassVar[int] = 18  # axes of reductions and pads are inputs

    def match(self, node: ir.Node) -> bool:
        """A Transpose."""
        return is_op(node, "Transpose") and permutation(node) is not None

    def check(self, node: ir.Node) -> str | None:
        """Turning something before or behind it leaves fewer; each region is looked at once."""
        looked_at = _graph(node).meta.setdefault(_LOOKED_AT, set())
        for region in _regions(node, looked_at):
            if region.turned:
                return None
            looked_at |= {(id(member), found.reads) for member, found in region.nodes.items()}
        return "no Transposes cancel on the other side"

    def rewrite(self, node: ir.Node) -> None:
        """Turn what gains."""
        turn_region(next(region for region in _regions(node) if region.turned))

    def apply_to(self, model: ir.Model, numbers: Collection[int] | None) -> Outcome:
        """As any rule; what was looked at before may have changed since."""
        for graph in model.graphs():
            graph.meta.pop(_LOOKED_AT, None)
        return super().apply_to(model, numbers)


_LOOKED_AT = "infertool.turned"


def _graph(node: ir.Node) -> ir.Graph | ir.Function:
    assert node.graph is not None
    return node.graph


def _regions(node: ir.Node, but: Collection[Looked] = ()) -> Iterator[Region]:
    """Before the Transpose, which then is applied to all of it, and behind it, the other way."""
    perm, before = permutation(node), node.inputs[0]
    assert perm is not None
    assert before is not None
    yield from find_region(before, tuple(perm), but)
    yield from find_region(node.outputs[0], inverse(tuple(perm)), but)
