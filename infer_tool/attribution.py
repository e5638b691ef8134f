"""Which layer of a changed model hurts: errors of each by itself, and what leaving one out gains.

A layer is what computes a value that both models have, from other values that both have. Its own
error shows when it reads the source's values; the accumulated one when it reads its own model's.
A value that is quantised at once counts as its readers see it: clamps are often part of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import Session
from passes.base import is_op
from passes.facts import macs_by_node
from passes.graph import fresh_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Feeds = Mapping[str, np.ndarray[Any, Any]]

SOURCE = "source of "


@dataclass(frozen=True)
class Layer:
    """A value that both models compute, and the node of the candidate that does most of it."""

    value: str
    node: str
    op: str
    own: Ratio
    accumulated: Ratio


@dataclass
class Ratio:
    """Signal to noise of a stream."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, wanted: Any, got: Any) -> None:
        """Account for a pair of arrays; NaN on one side counts as noise without end."""
        wanted, got = wanted.astype(np.float64), got.astype(np.float64)
        error = np.where(np.isnan(wanted) & np.isnan(got), 0.0, got - wanted)
        self.signal += float(np.nansum(wanted * wanted))
        noise = float(np.sum(error * error))
        self.noise += noise if math.isfinite(noise) else math.inf

    @property
    def db(self) -> float:
        """10 log10(signal / noise)."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def noise_ratio(self) -> float:
        """sqrt(noise / signal); 0 where nothing differs."""
        return 0.0 if self.noise == 0 else 10 ** (-self.db / 20)


def rank_layers(source: ir.Model, candidate: ir.Model, feeds: Iterable[Feeds]) -> list[Layer]:
    """All layers, the noisiest by itself first; none where no float values have the same name."""
    names = common_values(source, candidate)
    if not names:
        return []
    seen = _seen(candidate, names)
    asked = list(seen.values())
    cut = _cut(candidate, seen)
    own = {name: Ratio() for name in names}
    accumulated = {name: Ratio() for name in names}
    first, second, alone = Session(source), Session(candidate), Session(cut)
    known = {i.name for i in alone.inputs}
    for feed in feeds:
        wanted = first.run(feed, names)
        given = {n: v for n, v in feed.items() if n in known}
        given |= {SOURCE + n: v for n, v in wanted.items() if SOURCE + n in known}
        for ratios, got in ((accumulated, second.run(feed, asked)), (own, alone.run(given, asked))):
            for name in names:
                ratios[name].add(wanted[name], got[seen[name]])
    main = _main_nodes(candidate, seen)
    layers = [Layer(n, main[n].name or "", main[n].op_type, own[n], accumulated[n]) for n in names]
    return sorted(layers, key=lambda layer: layer.own.db)


def common_values(source: ir.Model, candidate: ir.Model) -> list[str]:
    """Names of float values that both main graphs compute, in the candidate's order."""
    wanted = {
        o.name for n in source.graph for o in n.outputs if o.dtype in (None, ir.DataType.FLOAT)
    }
    names = [
        o.name
        for n in candidate.graph
        for o in n.outputs
        if o.name in wanted and o.dtype in (None, ir.DataType.FLOAT)
    ]
    return [name for name in names if name]


def _floats(graph: ir.Graph) -> list[str]:
    outputs = (o for n in graph for o in n.outputs)
    return [o.name for o in outputs if o.name and o.dtype in (None, ir.DataType.FLOAT)]


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    values = {o.name or "": o for n in graph for o in n.outputs}
    values |= {v.name or "": v for v in graph.inputs}
    return values | dict(graph.initializers)


def _seen(model: ir.Model, names: Sequence[str]) -> dict[str, str]:
    """The name under which readers meet each value: behind QuantizeLinear and DequantizeLinear."""
    values = _values(model.graph)
    return {name: _restored(values[name]).name or "" for name in names}


def _restored(value: ir.Value) -> ir.Value:
    current = value
    for op in ("QuantizeLinear", "DequantizeLinear"):
        readers = {user for user, _ in current.uses()}
        reader = readers.pop() if len(readers) == 1 else None
        if reader is None or not is_op(reader, op) or reader.inputs[0] is not current:
            return value
        current = reader.outputs[0]
    return current


def _cut(candidate: ir.Model, seen: Mapping[str, str]) -> ir.Model:
    """Readers of each value take it from an input of the model, which the source will feed."""
    copy = candidate.clone()
    values = _values(copy.graph)
    copy.graph.outputs.clear()
    for name, there in seen.items():
        value = values[there]
        given = ir.Value(name=SOURCE + name, shape=None, type=ir.TensorType(ir.DataType.FLOAT))
        if value.uses():
            value.replace_all_uses_with(given)
            copy.graph.inputs.append(given)
        value.type = ir.TensorType(ir.DataType.FLOAT)
        copy.graph.outputs.append(value)
    return copy


def _cone(value: ir.Value, borders: set[str]) -> list[ir.Node]:
    """The nodes that compute a value from values of other names, in order."""
    found: dict[int, ir.Node] = {}

    def visit(current: ir.Value) -> None:
        node = current.producer()
        if node is None or id(node) in found:
            return
        for read in node.inputs:
            if read is not None and (read.name not in borders or read.producer() is None):
                visit(read)
        found[id(node)] = node

    visit(value)
    return list(found.values())


def _main_nodes(model: ir.Model, seen: Mapping[str, str]) -> dict[str, ir.Node]:
    """Of each layer the node with the most multiply-accumulates, else the first one."""
    macs, values, borders = macs_by_node(model), _values(model.graph), set(seen.values())
    result = {}
    for name, there in seen.items():
        cone = _cone(values[there], borders - {there})
        inner = [n for n in cone if not is_op(n, "QuantizeLinear", "DequantizeLinear")]
        result[name] = max(inner or cone, key=lambda n: macs.get(n.name or "", 0))
    return result


def without_layer(
    source: ir.Model, candidate: ir.Model, layer: Layer, names: Sequence[str]
) -> ir.Model:
    """The candidate with one layer computed as the source does, from the candidate's values."""
    copy, origin = candidate.clone(), source.clone()
    borders = set(names) | {v.name or "" for v in origin.graph.inputs}
    target, wanted = _values(copy.graph)[layer.value], _values(origin.graph)[layer.value]
    anchor = target.producer()
    assert anchor is not None
    transplant = _Transplant(copy.graph, _seen(copy, names))
    for node in _cone(wanted, borders - {layer.value}):
        new = transplant.node(node)
        copy.graph.insert_after(anchor, new)
        anchor = new
    _take_over(copy.graph, target, transplant.mapped[id(wanted)])
    copy.graph.sort()
    return copy


def is_plain(source: ir.Model, layer: Layer, names: Sequence[str]) -> bool:
    """Does the source compute the layer without If, Loop or Scan, whose bodies cannot move?"""
    cone = _cone(_values(source.graph)[layer.value], set(names) - {layer.value})
    attributes = (a for n in cone for a in n.attributes.values())
    return not any(a.type == ir.AttributeType.GRAPH for a in attributes)


class _Transplant:
    """Copies nodes of another model, with the constants they read, under names of their own."""

    def __init__(self, graph: ir.Graph, seen: Mapping[str, str]) -> None:
        self.graph = graph
        values = _values(graph)
        self.here = values | {name: values[there] for name, there in seen.items()}
        self.mapped: dict[int, ir.Value] = {}

    def node(self, node: ir.Node) -> ir.Node:
        """A copy that reads this graph's values."""
        new = ir.Node(
            node.domain,
            node.op_type,
            [self._value(v) for v in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=fresh_name(self.graph, f"{node.name}_source"),
        )
        for output, old in zip(new.outputs, node.outputs, strict=True):
            output.name = fresh_name(self.graph, f"{old.name}_source")
            output.shape, output.type = old.shape, old.type
            self.mapped[id(old)] = output
        return new

    def _value(self, value: ir.Value | None) -> ir.Value | None:
        if value is None:
            return None
        if id(value) not in self.mapped:
            self.mapped[id(value)] = self._constant(value) or self.here[value.name or ""]
        return self.mapped[id(value)]

    def _constant(self, value: ir.Value) -> ir.Value | None:
        if not value.is_initializer() or value.const_value is None:
            return None
        kept = ir.Value(
            name=fresh_name(self.graph, f"{value.name}_source"),
            shape=value.shape,
            type=value.type,
            const_value=value.const_value,
        )
        self.graph.register_initializer(kept)
        return kept


def _take_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    is_output = old.is_graph_output()
    old.replace_all_uses_with(new, replace_graph_outputs=is_output)
    if is_output:
        name, old.name = old.name, fresh_name(graph, f"{old.name}_left")
        new.name = name
