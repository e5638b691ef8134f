"""Shapes that are computed from different values and are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from passes.base import CLEANING, Outcome, Pass
from passes.match import rank
from passes.symbolic import is_shape_like, shape_elements

if TYPE_CHECKING:
    import onnx_ir as ir

    from passes.symbolic import Elements


@dataclass(frozen=True)
class ShareShapes(Pass):
    """The first of those with the same numbers and names of dimensions serves all.

    Given:  y = Relu(x)   a = Slice(Shape(x), 0, 1)   b = Gather(Shape(y), [0])   x, y: [N, 8]
    Result: a in the place of b
    """

    name: ClassVar[str] = "share-shapes"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Per graph, in order; what computed the others is dead from now on."""
        found = shape_elements(model)
        return Outcome(sum(_share(graph, found) for graph in model.graphs()))


def _share(graph: ir.Graph, found: Elements) -> int:
    first: dict[Any, ir.Value] = {}
    changes = 0
    for node in graph:
        if not node.outputs or (elements := found.get(id(node.outputs[0]))) is None:
            continue
        value = node.outputs[0]
        if None in elements or not is_shape_like(value) or rank(value) is None:
            continue
        earlier = first.setdefault((value.dtype, rank(value), elements), value)
        if earlier is not value and value.uses() and not value.is_graph_output():
            value.replace_all_uses_with(earlier)
            changes += 1
    return changes
