"""The branch that is always taken, without its If."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from passes.base import CLEANING, Outcome, Pass, all_nodes, is_op
from passes.graph import constant, detach_subgraphs, forget_names, fresh_name, replace_value
from passes.infer_ranks import CERTAIN
from passes.match import rank

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class InlineIf(Pass):
    """A condition that is constant decides now; so does a branch that cannot be taken.

    Given:  y = If<then_branch: p = f(x), else_branch: q = g(x)>(True)
    Result: y = f(x)   also where the rank of q is not the one that y is proved to have
    """

    name: ClassVar[str] = "inline-if"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Outer nodes first: what comes out of a branch is looked at in its new place."""
        found = [n for n in all_nodes(model) if is_op(n, "If") and _condition(n) is not None]
        if not found:
            return Outcome(0)
        forget_names(model)
        names = Counter(_names(model))
        for node in found:
            if node.graph is not None:
                _inline(node, names)
        return Outcome(len(found))


def _condition(node: ir.Node) -> bool | None:
    array = constant(node.inputs[0])
    if array is not None and array.size == 1:
        return bool(array.reshape(()))
    possible = [_is_possible(node, name) for name in ("then_branch", "else_branch")]
    return possible[0] if possible.count(True) == 1 else None


def _is_possible(node: ir.Node, name: str) -> bool:
    """Have the results of a branch the ranks that `InferRanks` proved?"""
    pairs = zip(node.attributes[name].as_graph().outputs, node.outputs, strict=True)
    return all(rank(b) in (None, o.meta.get(CERTAIN, rank(b))) for b, o in pairs)


def _names(model: ir.Model) -> Iterator[str | None]:
    """All of them, as often as they are used: two branches may share one."""
    for graph in model.graphs():
        yield from (v.name for v in (*graph.inputs, *graph.initializers.values()))
        for node in graph:
            yield from (node.name, *(o.name for o in node.outputs))


def _inline(node: ir.Node, names: Counter[str | None]) -> None:
    chosen = "then_branch" if _condition(node) else "else_branch"
    branch, graph = node.attributes[chosen].as_graph(), node.graph
    assert isinstance(graph, ir.Graph)
    results = list(branch.outputs)
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        value.name = _unique(graph, name, names)
        graph.register_initializer(value)
    moved = list(branch)
    branch.remove(moved)
    for inner in moved:
        inner.name = _unique(graph, inner.name or inner.op_type, names)
        for output in inner.outputs:
            if output.name:
                output.name = _unique(graph, output.name, names)
    graph.insert_before(node, moved)
    for old, new in zip(node.outputs, results, strict=True):
        _hand_over(node, old, new)
    detach_subgraphs(node)
    graph.remove(node, safe=True)


def _unique(graph: ir.Graph, name: str, names: Counter[str | None]) -> str:
    """The name itself where nobody else in the model has it."""
    return name if names[name] <= 1 else fresh_name(graph, name)


def _hand_over(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    """The users of the If's output; one that keeps its name may need an Identity."""
    if replace_value(old, new):
        return
    assert isinstance(node.graph, ir.Graph)
    copy = ir.node("Identity", [new], name=fresh_name(node.graph, f"{node.name}_result"))
    node.graph.insert_before(node, copy)
    replace_value(old, copy.outputs[0])
