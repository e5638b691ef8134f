"""What a pass is, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


@dataclass(frozen=True)
class Refusal:
    """A node that was left as it is, and why."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class Fired:
    """A node that was rewritten; `number` is its place in the walk over all nodes."""

    number: int
    node: str
    op: str


@dataclass(frozen=True)
class Outcome:
    """How many changes a pass made, where (as far as it knows), and what it refused."""

    changes: int
    refusals: tuple[Refusal, ...] = ()
    fired: tuple[Fired, ...] = ()


CLEANING, FUSION, EXTERNAL = 1, 2, 3


@dataclass(frozen=True)
class Pass(ABC):
    """An exact rewrite of a whole model, in place.

    The graph is valid before and after, computes the same outputs, and keeps the names, order,
    types and dynamic dimensions of its inputs and outputs.

    `level` is the first `--level` that runs it: CLEANING keeps every bit of the outputs, FUSION
    may round in another place, EXTERNAL is foreign code, which runs once, after the others.
    """

    name: ClassVar[str]
    level: ClassVar[int] = FUSION

    @abstractmethod
    def apply(self, model: ir.Model) -> Outcome:
        """Rewrite the model in place."""


class RewriteRule(Pass):
    """A pass that looks at one node at a time, in every graph and subgraph.

    `match` says whether the node is of interest at all, `check` why it must not be rewritten
    (None when it may be), `rewrite` changes the graph. `since` is the opset that the result needs.
    """

    since: ClassVar[int] = 1

    @abstractmethod
    def match(self, node: ir.Node) -> bool:
        """Is this a node the rule is about?"""

    @abstractmethod
    def check(self, node: ir.Node) -> str | None:
        """The reason to refuse, or None."""

    @abstractmethod
    def rewrite(self, node: ir.Node) -> None:
        """Change the graph; `check` has passed."""

    def apply(self, model: ir.Model) -> Outcome:
        """Try every node once."""
        return self.apply_to(model, None)

    def apply_to(self, model: ir.Model, numbers: Collection[int] | None) -> Outcome:
        """Try the nodes with these places in the walk once; None means all."""
        from passes.facts import opset
        from passes.graph import forget_names

        late = f"the result needs opset {self.since}" if opset(model) < self.since else None
        fired: list[Fired] = []
        refusals = []
        for number, node in enumerate(walked(model)):
            if node.graph is None or (numbers is not None and number not in numbers):
                continue  # an earlier rewrite of this round removed it, or it was not asked for
            if not self.match(node):
                continue
            name, op = node.name or "?", node.op_type
            if reason := late or undone_reason(node, self.name) or self.check(node):
                refusals.append(Refusal(name, op, reason))
                continue
            if not fired:
                forget_names(model)
            self.rewrite(node)
            fired.append(Fired(number, name, op))
        return Outcome(len(fired), tuple(refusals), tuple(fired))


_UNDONE = "infertool.undone"


def mark_undone(node: ir.Node, rule: str, reason: str) -> None:
    """Let `rule` refuse this node from now on, also in clones of the model; no file shows it."""
    node.meta[_UNDONE] = {**node.meta.get(_UNDONE, {}), rule: reason}


def undone_reason(node: ir.Node, rule: str) -> str | None:
    """Why an earlier rewrite of this node by `rule` was undone, if one was."""
    reason: str | None = node.meta.get(_UNDONE, {}).get(rule)
    return reason


_WALKED = "infertool.walked"


@contextmanager
def walked_before(model: ir.Model, nodes: list[ir.Node]) -> Iterator[None]:
    """Within it, rules take `nodes` for what a walk over the model finds: most change nothing."""
    graph = model.graph  # a rule may put another one in its place
    graph.meta[_WALKED] = nodes
    try:
        yield
    finally:
        del graph.meta[_WALKED]


def walked(model: ir.Model) -> list[ir.Node]:
    """All nodes, as they were before the rule that asks."""
    found: list[ir.Node] | None = model.graph.meta.get(_WALKED)
    return list(all_nodes(model)) if found is None else found


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Nodes of the main graph and of every subgraph, in order."""
    return _walk(model.graph)


def _walk(graph: ir.Graph) -> Iterator[ir.Node]:
    """As onnx_ir's own walk, several times faster; every pass starts with it."""
    for node in graph:
        yield node
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _walk(attribute.as_graph())
            elif attribute.type == ir.AttributeType.GRAPHS:
                for inner in attribute.as_graphs():
                    yield from _walk(inner)


def is_op(node: ir.Node | None, *names: str) -> bool:
    """Is this a standard operator of one of these names?"""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in names
