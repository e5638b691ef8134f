"""The nodes around a Transpose that work in any order of the axes, and which of them to turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from passes.graph import is_constant
from passes.match import dims, producer
from passes.merge_reshapes import order_stays
from passes.merge_transposes import permutation
from passes.min_cut import FOREVER, Flow
from passes.turn import Perm, Turned, inverse, turn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import onnx_ir as ir

    from passes.match import Dims
    from passes.min_cut import Place

SOURCE, SINK = "as it is", "turned"
ONE = 1 << 40  # a Transpose counts more than all elements that others move
USUAL = 16  # for a dynamic dimension
LARGER = 2  # times as many elements may be moved when there are fewer Transposes


@dataclass
class Region:
    """Connected nodes that can be turned by `perm`, how, and which of them gain."""

    perm: Perm
    nodes: dict[ir.Node, Turned] = field(default_factory=dict)
    values: dict[ir.Value, None] = field(default_factory=dict)
    turned: dict[ir.Node, Turned] = field(default_factory=dict)

    def reads_turned(self, user: ir.Node, index: int) -> bool:
        """Is this one of the inputs that would come turned?"""
        found = self.nodes.get(user)
        return found is not None and index in found.data


def find_region(
    start: ir.Value, perm: Perm, but: Collection[tuple[int, Perm]] = ()
) -> Iterator[Region]:
    """The region around a value without the nodes (by `id`) in `but`; nothing when it is empty."""
    if is_constant(start):
        return
    region = Region(perm)
    waiting = [start]
    region.values[start] = None
    while waiting:
        value = waiting.pop()
        for node in _neighbours(value):
            if node in region.nodes or (id(node), perm) in but:
                continue
            found = turn(node, perm)
            if found is None or not _reads_or_makes(node, found, value):
                continue
            region.nodes[node] = found
            fresh = [v for v in _values(node, found) if v not in region.values]
            region.values |= dict.fromkeys(fresh)
            waiting += fresh
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


def _reads_or_makes(node: ir.Node, turned: Turned, value: ir.Value) -> bool:
    """Is the value one that comes turned, and not a scale, an index or a result that stays?"""
    makes = value in node.outputs and not turned.keeps
    return makes or any(node.inputs[i] is value for i in turned.data)


def _values(node: ir.Node, turned: Turned) -> Iterator[ir.Value]:
    for index in turned.data:
        value = node.inputs[index]
        if value is not None and not is_constant(value):
            yield value
    if not turned.keeps:
        yield from (o for o in node.outputs if o.name)


def _best(region: Region) -> dict[ir.Node, Turned]:
    """The nodes to turn; none when that saves nothing."""
    bundles = [b for value in region.values if (b := _bundle(region, value)) is not None]
    flow = Flow()
    flow.connect(SOURCE, SINK, 0)
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
    readers = tuple(dict.fromkeys(_readers(region, value)))
    price = _price(dims(value) or (USUAL,) * len(region.perm), region.perm)
    return _Bundle(_maker(region, value), readers, price) if readers else None


def _price(sizes: Dims, perm: Perm) -> int:
    """Next to nothing for a Transpose that becomes a Reshape."""
    if order_stays(sizes, perm):
        return 1
    return ONE + prod(d if isinstance(d, int) else USUAL for d in sizes)


def _maker(region: Region, value: ir.Value) -> Place:
    node = value.producer()
    if node is not None and node in region.nodes:
        return node
    before = producer(value, "Transpose")
    perm = None if before is None else permutation(before)
    if perm is None:
        return SOURCE
    # A Transpose by something else becomes another one, whichever order is asked for.
    return SINK if tuple(perm) == inverse(region.perm) else value


def _readers(region: Region, value: ir.Value) -> Iterator[Place]:
    if value.is_graph_output():
        yield SOURCE
    for user, index in value.uses():
        if region.reads_turned(user, index):
            yield user
        elif user.op_type != "Transpose" or user.domain not in ("", "ai.onnx"):
            yield SOURCE
        elif permutation(user) == list(region.perm):
            yield SINK
