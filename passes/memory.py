"""Which values of a graph live when, and which of them are the same memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from passes.base import is_op
from passes.memory_plan import Buffer, greedy_by_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The first output is the first input under another shape: a kernel need not copy.
VIEWS = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout")


@dataclass(frozen=True)
class Lifetimes:
    """The buffers of a graph, and the values whose size nobody knows, which are in none."""

    buffers: tuple[Buffer, ...]
    unknown: tuple[str, ...]


def lifetimes(graph: ir.Graph, sizes: Mapping[str, int]) -> Lifetimes:
    """Buffers of the graph's inputs and of what its nodes compute; times are places of nodes.

    A value lives from the node that computes it to the last node that reads it, both included, an
    input from the first node on, an output to the last one. A subgraph is memory of the node that
    holds it. Weights are not in the plan: they lie in the file.
    """
    nodes = list(graph)
    unknown: list[str] = []
    groups = _Groups(graph, max(len(nodes) - 1, 0))
    for value in graph.inputs:
        if not value.is_initializer():
            groups.start(value, 0)
    for time, node in enumerate(nodes):
        for value in _reads(node):
            groups.use(value, time)
        for number, value in enumerate(node.outputs):
            if value.name and not is_op(node, "Constant"):
                viewed = _viewed(node, sizes) if number == 0 else None
                groups.start(value, time, viewed)
        groups.add_scratch(node, time, _subgraph_bytes(node, sizes, unknown))
    buffers = groups.buffers(sizes, unknown)
    return Lifetimes(tuple(buffers), tuple(dict.fromkeys(unknown)))


class _Groups:
    """Values that share memory, by the value that fills it."""

    def __init__(self, graph: ir.Graph, end: int) -> None:
        self._end = end
        self._first: dict[ir.Value, int] = {}
        self._last: dict[ir.Value, int] = {}
        self._root: dict[ir.Value, ir.Value] = {}
        self._values: dict[ir.Value, list[str]] = {}
        self._scratch: list[Buffer] = []
        self._outputs = set(graph.outputs)

    def start(self, value: ir.Value, time: int, viewed: ir.Value | None = None) -> None:
        """The value appears, in memory of its own or, as a view, in that of another."""
        if viewed is not None and (viewed.is_initializer() or viewed not in self._root):
            return  # of a constant, or of a value of the graph around this one
        root = value if viewed is None else self._root[viewed]
        self._root[value] = root
        self._first.setdefault(root, time)
        self._values.setdefault(root, []).append(value.name or "")
        self.use(value, self._end if value in self._outputs else time)

    def use(self, value: ir.Value, time: int) -> None:
        """Somebody reads the value at this time; values from elsewhere do not count."""
        if (root := self._root.get(value)) is not None:
            self._last[root] = max(self._last.get(root, 0), time)

    def add_scratch(self, node: ir.Node, time: int, size: int) -> None:
        """Memory that only this node needs."""
        if size:
            self._scratch.append(Buffer((f"subgraphs of {node.name}",), size, time, time))

    def buffers(self, sizes: Mapping[str, int], unknown: list[str]) -> Iterator[Buffer]:
        """One for each group with a known size."""
        for root, names in self._values.items():
            known = [sizes[name] for name in names if name in sizes]
            if not known:
                unknown.extend(names)
            elif max(known):
                yield Buffer(tuple(names), max(known), self._first[root], self._last[root])
        yield from self._scratch


def _viewed(node: ir.Node, sizes: Mapping[str, int]) -> ir.Value | None:
    """The input that the first output is a view of: the same bytes, where both are known."""
    if not is_op(node, *VIEWS) or node.inputs[0] is None:
        return None
    value, output = node.inputs[0], node.outputs[0]
    same = sizes.get(value.name or "") == sizes.get(output.name or "")
    return value if same else None


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads, and what its subgraphs take from outside."""
    yield from (value for value in node.inputs if value is not None)
    for graph in _subgraphs(node):
        yield from graph.outputs
        for inner in graph.all_nodes():
            yield from (value for value in inner.inputs if value is not None)


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def _subgraph_bytes(node: ir.Node, sizes: Mapping[str, int], unknown: list[str]) -> int:
    """The arena of the largest subgraph: they run one after the other."""
    largest = 0
    for graph in _subgraphs(node):
        inner = lifetimes(graph, sizes)
        unknown.extend(inner.unknown)
        largest = max(largest, greedy_by_size(inner.buffers).arena)
    return largest
