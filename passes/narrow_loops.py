"""Loop and Scan without the state and the outputs that nobody reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import replace_value, with_outputs
from passes.match import producer
from passes.remove_unused import sweep

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class NarrowLoops(RewriteRule):
    """What goes round and is never read goes; what never changes is read from outside.

    Given:  y, n, s = Loop(m, c, y0, n0, k0) { ... n1 = n + 1; k1 = k; s1 = ... }   n, s not read
    Result: y = Loop(m, c, y0) { ... k0 ... }
    """

    name: ClassVar[str] = "narrow-loops"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Loop or a Scan with something to drop."""
        if not is_op(node, "Loop", "Scan"):
            return False
        form = _Form.of(node)
        if len(node.outputs) != len(form.body.outputs) - form.first_body_output:
            return False
        return bool(form.still()) or len(form.alive()) < len(node.outputs)

    def check(self, node: ir.Node) -> str | None:
        """Some output is left: a loop without one is dead and goes as a whole."""
        return None if any(_is_used(o) for o in node.outputs) else "nobody reads it at all"

    def rewrite(self, node: ir.Node) -> None:
        """First what never changes, then what nobody reads any more."""
        form = _Form.of(node)
        for index in form.still():
            start = node.inputs[form.first_input + index]
            assert start is not None
            replace_value(node.outputs[index], start)
            for user, place in list(form.body.inputs[form.first_body_input + index].uses()):
                user.replace_input_with(place, start)
        _narrow(node, form, form.alive())


@dataclass(frozen=True)
class _Form:
    """Where state number 0 stands among inputs and outputs of the node and of its body."""

    node: ir.Node
    body: ir.Graph
    states: int
    first_input: int
    first_body_input: int
    first_body_output: int

    @classmethod
    def of(cls, node: ir.Node) -> _Form:
        """Loop: (trips, condition, states), (trip, condition, states), (condition, states, ...)."""
        body = node.attributes["body"].as_graph()
        if is_op(node, "Loop"):
            return cls(node, body, len(node.inputs) - 2, 2, 2, 1)
        scanned = node.attributes["num_scan_inputs"].as_int()
        return cls(node, body, len(node.inputs) - scanned, 0, 0, 0)

    def still(self) -> list[int]:
        """States that every turn hands on as they are; an output of the graph keeps its name."""
        found = []
        for index in range(self.states):
            inside = self.body.inputs[self.first_body_input + index]
            start = self.node.inputs[self.first_input + index]
            place = self.first_body_output + index
            others = [o for i, o in enumerate(self.body.outputs) if i != place]
            still = _origin(self.body.outputs[place]) is inside and inside not in others
            if still and start is not None and not self.node.outputs[index].is_graph_output():
                found.append(index)
        return found

    def alive(self) -> list[int]:
        """Outputs of the node that count: those that are read, and the states that make them."""
        alive = {i for i, o in enumerate(self.node.outputs) if _is_used(o)}
        while True:
            roots = [self.body.outputs[self.first_body_output + i] for i in alive]
            needed = _needed([*self.body.outputs[: self.first_body_output], *roots])
            inside = self.body.inputs[self.first_body_input :][: self.states]
            grown = alive | {i for i, value in enumerate(inside) if value in needed}
            if grown == alive:
                return sorted(alive)
            alive = grown


def _origin(value: ir.Value) -> ir.Value:
    """What an Identity passes on, which exporters put before an output of a body."""
    node = producer(value, "Identity")
    return value if node is None or node.inputs[0] is None else node.inputs[0]


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _needed(roots: list[ir.Value]) -> set[ir.Value]:
    """Values that these are computed from, also through what a subgraph takes from outside."""
    found, waiting = set(roots), list(roots)
    while waiting:
        node = waiting.pop().producer()
        for value in () if node is None else _reads(node):
            if value not in found:
                found.add(value)
                waiting.append(value)
    return found


def _reads(node: ir.Node) -> Iterator[ir.Value]:
    yield from (v for v in node.inputs if v is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graph = attribute.as_graph()
            yield from graph.outputs
            for inner in graph:
                yield from _reads(inner)


def _narrow(node: ir.Node, form: _Form, alive: list[int]) -> None:
    """Put a node with these outputs in the place of the old one; its body is the same graph."""
    dropped = [i for i in range(len(node.outputs)) if i not in alive]
    for index in reversed(dropped):
        form.body.outputs.pop(form.first_body_output + index)
    sweep(form.body)
    states = [i for i in dropped if i < form.states]
    for index in reversed(states):
        form.body.inputs.pop(form.first_body_input + index)
    gone = {form.first_input + index for index in states}
    inputs = [value for index, value in enumerate(node.inputs) if index not in gone]
    _narrow_scan(with_outputs(node, inputs, alive), form, alive)


def _narrow_scan(node: ir.Node, form: _Form, alive: list[int]) -> None:
    """One entry of these attributes for each scanned output."""
    for name in ("scan_output_axes", "scan_output_directions"):
        if (numbers := node.attributes.get_ints(name, None)) is not None:
            kept = [numbers[i - form.states] for i in alive if i >= form.states]
            node.attributes[name] = ir.AttrInt64s(name, kept)
