"""A quantised model before it is written: float operators between rounded numbers.

The kernels are those of the reference runtime, on NumPy arrays or on torch tensors with gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime import evaluate
from infer_runtime.plan import Plan, Setting
from passes.graph import is_constant
from quant.selection import is_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np

    from infer_runtime.registry import Library
    from quant.selection import Selection

    Array = np.ndarray[Any, Any]

HELD_BYTES, FEWEST_BATCHES = 1 << 29, 16  # of calibration data, held from part to part


@dataclass
class Rounded:
    """What stands in for the numbers of a float model; changes count from the next run on.

    `activation` rounds the value of a name; weights and biases are by node.
    """

    chosen: Selection
    activation: Callable[[str, Any], Any]
    weights: dict[str, Any]
    biases: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Segment:
    """Some neighbouring nodes as a graph of their own, and the layers among them."""

    graph: ir.Graph
    layers: list[ir.Node]
    opsets: Mapping[str, int] = field(repr=False)

    @property
    def inputs(self) -> list[str]:
        """Names of what the segment reads."""
        return [v.name or "" for v in self.graph.inputs]

    @property
    def outputs(self) -> list[str]:
        """Names of what is read after it."""
        return [v.name or "" for v in self.graph.outputs]

    def plan(self, rounded: Rounded | None = None, library: Library = "numpy") -> Plan:
        """How to run it: in float, or with rounded numbers."""
        kernel = partial(evaluate.bind, library=library)
        setting = Setting(self.opsets, bind=partial(_bound, rounded=rounded, bind=kernel))
        if library == "torch":
            from infer_runtime.torch_library import to_tensor

            setting = Setting(self.opsets, bind=setting.bind, settled=to_tensor)
        return Plan(self.graph, setting)


def _bound(
    node: ir.Node, opset: int, *, rounded: Rounded | None, bind: Callable[..., Any]
) -> Callable[..., Any]:
    """The kernel of a node between rounded inputs and a rounded output."""
    compute: Callable[..., Any] = bind(node, opset)
    if rounded is None:
        return compute
    name = node.name or ""
    is_clamp = any(c.name == name for c in rounded.chosen.clamps.values())
    operands = rounded.chosen.inputs.get(name, [])
    if not operands and not is_clamp:
        return compute
    names = [v.name or "" if v is not None else "" for v in node.inputs]
    kept = [o.name or "" for o in node.outputs if _is_rounded(o, rounded, is_clamp=is_clamp)]

    def run(*inputs: Any) -> Any:
        given = [
            rounded.activation(names[i], x) if i in operands else x for i, x in enumerate(inputs)
        ]
        if name in rounded.weights:
            bias = rounded.biases[name]
            given = [given[0], rounded.weights[name], *([] if bias is None else [bias])]
        result = compute(*given)
        return rounded.activation(kept[0], result) if kept and len(node.outputs) == 1 else result

    return run


def _is_rounded(value: ir.Value, rounded: Rounded, *, is_clamp: bool) -> bool:
    node = value.producer()
    clamped = node is not None and node.name in rounded.chosen.clamps
    return (value.name or "") in rounded.chosen.values and (is_clamp or not clamped)


def segments(model: ir.Model, chosen: Selection, layers: int) -> list[Segment]:
    """The main graph in pieces, in order, each with at least so many layers but for the last.

    A piece ends where only one value of its own is read later, so that a residual connection
    does not leave it; with one layer each, directly behind the layer and its clamp.
    """
    nodes, found, start, inside = list(model.graph), [], 0, 0
    for end, (node, following) in enumerate(pairwise([*nodes, None]), 1):
        assert node is not None
        inside += _has_weight(node, chosen)
        clamp = chosen.clamps.get(node.name or "")
        waits = following is None or inside < layers or (clamp is not None and clamp is following)
        if waits or (layers > 1 and len(_live(nodes[start:end])) > 1):
            continue
        found.append(_segment(model, nodes[start:end], chosen))
        start, inside = end, 0
    return [*found, _segment(model, nodes[start:], chosen)]


def _has_weight(node: ir.Node, chosen: Selection) -> bool:
    return node.name in chosen.nodes and is_layer(node)


def _with_branches(nodes: Iterable[ir.Node]) -> list[ir.Node]:
    """The nodes and those of their subgraphs."""
    found = []
    for node in nodes:
        found.append(node)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                found += list(attribute.as_graph().all_nodes())
    return found


def _live(nodes: list[ir.Node]) -> list[ir.Value]:
    """What others read of the results of these nodes."""
    inside = {id(n) for n in _with_branches(nodes)}
    return [
        value
        for node in nodes
        for value in node.outputs
        if value.is_graph_output() or any(id(user) not in inside for user, _ in value.uses())
    ]


def _segment(model: ir.Model, nodes: list[ir.Node], chosen: Selection) -> Segment:
    made = {id(v) for n in nodes for v in n.outputs}
    reads = {
        value.name or "": value
        for node in _with_branches(nodes)
        for value in node.inputs
        if value is not None and value.graph is model.graph
        if not is_constant(value) and id(value) not in made
    }
    graph = ir.convenience.extract(model.graph, list(reads.values()), _live(nodes))
    layers = [n for n in nodes if _has_weight(n, chosen)]
    return Segment(graph, layers, model.opset_imports)


def fitting(feeds: Iterable[Mapping[str, Any]], order: list[Segment]) -> list[Mapping[str, Any]]:
    """As many batches as `HELD_BYTES` have room for, twice; memory does not grow with the data."""
    rest = iter(feeds)
    first = list(islice(rest, 1))
    held, most = Held(first, order, None), 1
    for segment in order:
        held.advance(segment)
        most = max(most, held.nbytes)
    return [*first, *islice(rest, max(FEWEST_BATCHES, HELD_BYTES // (2 * most)) - 1)]


class Held:
    """Values of some batches as far as later segments read them; `rounded` None for float."""

    def __init__(
        self, feeds: Iterable[Mapping[str, Any]], order: list[Segment], rounded: Rounded | None
    ) -> None:
        self._batches = [dict(f) for f in feeds]
        self._order, self._rounded = order, rounded

    def inputs(self, segment: Segment) -> list[dict[str, Any]]:
        """What the segment reads, of each batch."""
        return [{n: values[n] for n in segment.inputs} for values in self._batches]

    @property
    def nbytes(self) -> int:
        """The memory of all values."""
        return sum(value.nbytes for values in self._batches for value in values.values())

    def values(self, segment: Segment, name: str) -> Iterator[Any]:
        """One value of each batch that the segment reads or computes."""
        plan = segment.plan(self._rounded)
        for given in self.inputs(segment):
            yield given[name] if name in given else plan.run(given, [name])[name]

    def outputs(self, segment: Segment, names: list[str]) -> list[dict[str, Any]]:
        """What it computes under these names, of each batch."""
        plan = segment.plan(self._rounded)
        return [plan.run(given, names) for given in self.inputs(segment)]

    def advance(self, segment: Segment) -> None:
        """Go behind the segment."""
        made = self.outputs(segment, segment.outputs)
        rest = self._order[self._order.index(segment) + 1 :]
        needed = {name for later in rest for name in later.inputs}
        for values, new in zip(self._batches, made, strict=True):
            kept = {n: v for n, v in {**values, **new}.items() if n in needed}
            values.clear()
            values.update(kept)
