"""Dead code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, Outcome, Pass
from passes.graph import detach_subgraphs

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class RemoveUnused(Pass):
    """Remove what no output needs.

    Given:  nodes whose outputs nobody uses, initialisers nobody reads, functions nobody calls
    Result: none of them; graph inputs stay, they are the interface
    """

    name: ClassVar[str] = "remove-unused"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Sweep backwards once: a node goes after all its users went."""
        from onnx_ir.passes.common import RemoveUnusedFunctionsPass

        changes = 0
        for graph in reversed(list(model.graphs())):
            changes += sweep(graph)
        before = len(model.functions)
        RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        return Outcome(changes + before - len(model.functions))


def sweep(graph: ir.Graph) -> int:
    """Remove dead nodes and initialisers of one graph; returns how many."""
    changes = 0
    for node in reversed(list(graph)):
        if not any(o.uses() or o.is_graph_output() for o in node.outputs):
            graph.remove(node, safe=True)
            detach_subgraphs(node)
            changes += 1
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]
            changes += 1
    return changes
