"""What a pass is, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_GRAPH, _GRAPHS = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


@dataclass(frozen=True)
class Refusal:
    """A node that was left as it is, and why."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """How many changes a pass made, and what it refused."""

    changes: int
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Pass(ABC):
    """An exact rewrite of a whole model, in place.

    The graph is valid before and after, computes the same outputs, and keeps the names, order,
    types and dynamic dimensions of its inputs and outputs.
    """

    name: ClassVar[str]

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
        from passes.facts import opset
        from passes.graph import forget_names

        late = f"the result needs opset {self.since}" if opset(model) < self.since else None
        changes, refusals = 0, []
        for node in list(all_nodes(model)):
            if node.graph is None or not self.match(node):
                continue  # an earlier rewrite of this round removed it
            if reason := late or self.check(node):
                refusals.append(Refusal(node.name or "?", node.op_type, reason))
                continue
            if not changes:
                forget_names(model)
            self.rewrite(node)
            changes += 1
        return Outcome(changes, tuple(refusals))


def all_nodes(model: ir.Model) -> Iterable[ir.Node]:
    """Nodes of the main graph and of every subgraph, in order; a node before its subgraphs."""
    return _walk(model.graph)


def _walk(graph: Iterable[ir.Node]) -> Iterator[ir.Node]:
    # Every pass walks the graph: the iterator of onnx_ir, which can do more, is too slow for that.
    for node in graph:
        yield node
        for attribute in node.attributes.values():
            if attribute.type == _GRAPH:
                yield from _walk(attribute.as_graph())
            elif attribute.type == _GRAPHS:
                for inner in attribute.as_graphs():
                    yield from _walk(inner)


def is_op(node: ir.Node | None, *names: str) -> bool:
    """Is this a standard operator of one of these names?"""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in names
