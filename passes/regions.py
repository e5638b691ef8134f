"""The nodes around a Transpose that work in any order of the axes, and which of them to turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, TypeAlias

from passes.base import is_op
from passes.graph import is_constant
from passes.match import dims, producer
from passes.merge_transposes import permutation
from passes.min_cut import FOREVER, Flow
from passes.permutations import Perm, inverse, is_still, moves_ones, turned_by
from passes.turn import Turned, turn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx_ir as ir

    from passes.match import Dims
    from passes.min_cut import Place

Looked: TypeAlias = tuple[int, Perm]  # a node by `id`, and how it would be read
SOURCE, SINK = "as it is", "turned"
ONE = 1 << 40  # a Transpose counts more than all elements that others move
USUAL = 16  # for a dynamic dimension
LARGER = 2  # times as many elements may be moved when there are fewer Transposes


@dataclass
class Region:
    """Connected nodes that can be turned, each value by its own permutation, and the ones to turn.

    The permutations differ where axes come or go.
    """

    values: dict[ir.Value, Perm]
    nodes: dict[ir.Node, Turned] = field(default_factory=dict)
    turned: dict[ir.Node, Turned] = field(default_factory=dict)

    def add(self, node: ir.Node, found: Turned) -> list[ir.Value]:
        """Take a node in; returns the values that it brings. It must agree on all it has."""
        perms = dict(_values(node, found))
        if any(self.values.get(value, perm) != perm for value, perm in perms.items()):
            return []
        self.nodes[node] = found
        fresh = [value for value in perms if value not in self.values]
        self.values |= perms
        return fresh

    def reads_turned(self, user: ir.Node, index: int) -> bool:
        """Is this one of the inputs that would come turned?"""
        return user in self.nodes and _comes_turned(self.nodes[user], index)


def find_region(start: ir.Value, perm: Perm, but: Collection[Looked] = ()) -> Iterator[Region]:
    """The region around a value without what is in `but`; nothing when it is empty."""
    if is_constant(start):
        return
    region = Region({start: perm})
    waiting = [start]
    while waiting:
        value = waiting.pop()
        for node in _neighbours(value):
            found = None if node in region.nodes else turn(node, value, region.values[value])
            if found is None or not _has(node, found, value) or (id(node), found.reads) in but:
                continue
            waiting += region.add(node, found)
    if region.nodes:
        region.turned = _best(region)
        yield region


def _neighbours(value: ir.Value) -> Iterator[ir.Node]:
    """The producer and the users, in the value's own graph."""
    node = value.producer()
    graph = value.graph if node is None else node.graph
    if node is not None:
        yield node
    for user, _ in value.uses():
        if user.graph is graph:
            yield user


def _has(node: ir.Node, found: Turned, value: ir.Value) -> bool:
    """Is the value one that comes turned, and not a scale or an index?"""
    return value in node.outputs or any(node.inputs[i] is value for i in found.data)


def _comes_turned(found: Turned, index: int) -> bool:
    return index in found.data and not is_still(found.reads)


def _values(node: ir.Node, found: Turned) -> Iterator[tuple[ir.Value, Perm]]:
    for index, value in enumerate(node.inputs):
        if value is not None and _comes_turned(found, index) and not is_constant(value):
            yield value, found.reads
    if not is_still(found.gives):
        yield from ((output, found.gives) for output in node.outputs if output.name)


def _best(region: Region) -> dict[ir.Node, Turned]:
    """The nodes to turn; none when that saves nothing."""
    bundles = [b for value in region.values if (b := _bundle(region, value)) is not None]
    flow = Flow()
    for bundle in bundles:
        bundle.add_to(flow)
    sink_side = flow.sink_side(SOURCE, SINK)
    before, after = (sum(b.cost(side) for b in bundles) for side in ({SINK}, sink_side))
    if after >= before or after % ONE > LARGER * (before % ONE):
        return {}
    return {node: found for node, found in region.nodes.items() if node in sink_side}


@dataclass(frozen=True)
class _Bundle:
    """One value: who makes it, who reads it, and what a Transpose between them costs."""

    maker: Place
    readers: tuple[Place, ...]
    price: int

    def cost(self, sink_side: Collection[Place]) -> int:
        """One Transpose serves all readers."""
        here = self.maker in sink_side
        return self.price if any((r in sink_side) != here for r in self.readers) else 0

    def add_to(self, flow: Flow) -> None:
        """Two helping places: one turned when any reader is, one turned only when all are."""
        any_, all_ = ("any", id(self)), ("all", id(self))
        flow.connect(self.maker, any_, self.price)
        flow.connect(all_, self.maker, self.price)
        for reader in self.readers:
            flow.connect(any_, reader, FOREVER)
            flow.connect(reader, all_, FOREVER)


def _bundle(region: Region, value: ir.Value) -> _Bundle | None:
    """None for a value that nobody reads in one of the two orders."""
    perm = region.values[value]
    sizes = dims(value) or (None,) * len(perm)
    readers = tuple(dict.fromkeys(_readers(region, value, sizes)))
    return _Bundle(_maker(region, value), readers, _price(sizes, perm)) if readers else None


def _price(sizes: Dims, perm: Perm) -> int:
    """Next to nothing for a Transpose that becomes a Reshape."""
    if moves_ones(sizes, perm):
        return 1
    return ONE + prod(d if isinstance(d, int) else USUAL for d in sizes)


def _maker(region: Region, value: ir.Value) -> Place:
    """A Transpose makes whatever order is asked for, for nothing when that is the one it reads."""
    node = value.producer()
    if node is not None and node in region.nodes:
        return node
    before = producer(value, "Transpose")
    if before is None or (first := permutation(before)) is None:
        return SOURCE
    both = turned_by(first, region.values[value])
    sizes = dims(before.inputs[0]) or (None,) * len(both)
    return SINK if moves_ones(sizes, both) else value


def _readers(region: Region, value: ir.Value, sizes: Dims) -> Iterator[Place]:
    """A Transpose reads one order as well as the other, but for the one that it makes."""
    if value.is_graph_output():
        yield SOURCE
    perm = region.values[value]
    for user, index in value.uses():
        if region.reads_turned(user, index):
            yield user
        elif not is_op(user, "Transpose") or (second := permutation(user)) is None:
            yield SOURCE
        elif moves_ones(turned_by(sizes, perm), turned_by(inverse(perm), second)):
            yield SINK
