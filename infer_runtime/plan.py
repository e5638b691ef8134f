"""A graph as a list of steps: kernels bound once, every value freed after its last use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError, UnsupportedOpError
from infer_runtime.evaluate import bind, call, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infer_runtime.arrays import Array

    Values = dict[str, Any]
    Observer = Callable[[str, Array], None]


@dataclass(frozen=True)
class Step:
    """A node, its bound kernel, its subgraphs, and the values that nobody needs after it."""

    node: ir.Node
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    compute: Callable[..., Any]
    subplans: Mapping[str, Plan]
    frees: tuple[str, ...] = ()

    @property
    def reads(self) -> set[str]:
        """All values that the step needs, also those that its subgraphs take from outside."""
        own = {name for name in self.inputs if name is not None}
        return own.union(*(plan.captured for plan in self.subplans.values()))


class Plan:
    """The static plan of one graph; subgraphs have plans of their own.

    Args:
        graph: sorted, with names that are unique in their scope.
        opsets: version of each domain.
        outer: for a subgraph, the values that it may take from the graphs around it.

    Raises:
        ModelError: a node uses a value that nothing before it computes, or data is missing.
        UnsupportedOpError: operators without a kernel, all of them in one error.

    """

    def __init__(
        self, graph: ir.Graph, opsets: Mapping[str, int], outer: frozenset[str] = frozenset()
    ) -> None:
        self.inputs = [_name(v) for v in graph.inputs]
        self.outputs = [_name(v) for v in graph.outputs]
        self.constants = {name: _data(name, v) for name, v in graph.initializers.items()}
        own = {*self.inputs, *self.constants, *(_name(o) for n in graph for o in n.outputs)}
        steps = _steps(list(graph), opsets, outer, {*self.inputs, *self.constants})
        reads = {*self.outputs}.union(*(step.reads for step in steps))
        if unknown := sorted({*self.outputs} - own - outer):
            raise ModelError(f"output {unknown[0]!r} is computed by no node")
        self.captured = frozenset(reads - own)
        self.steps = _with_frees(steps, keep=outer.union(self.constants) - {*self.inputs})
        self.empty_outputs = tuple(_empty_stack(v) for v in graph.outputs)

    def knows(self, name: str) -> bool:
        """Is `name` a value of this graph?"""
        return (
            name in self.constants
            or name in self.inputs
            or any(name in step.outputs for step in self.steps)
        )

    def run(
        self, feeds: Mapping[str, Any], wanted: Sequence[str], observe: Observer | None = None
    ) -> Values:
        """Compute the wanted values from the feeds and, in a subgraph, the captured values."""
        values: Values = {**self.constants, **feeds}
        if observe is not None:
            for name, value in feeds.items():
                observe(name, value)
        keep = frozenset(wanted)
        for step in self.steps:
            results = _run_step(step, values)
            for name, result in zip(step.outputs, results, strict=False):
                if name:
                    values[name] = result
                    if observe is not None:
                        observe(name, result)
            for name in step.frees:
                if name not in keep:
                    values.pop(name, None)
        return values


def _run_step(step: Step, values: Values) -> tuple[Any, ...]:
    inputs = [None if name is None else values[name] for name in step.inputs]
    if not step.subplans:
        return call(step.node, step.compute, inputs)
    subgraphs = {key: Subgraph(plan, values) for key, plan in step.subplans.items()}
    return call(step.node, lambda *given: step.compute(*given, **subgraphs), inputs)


class Subgraph:
    """A subgraph as a function; what it captures comes from the enclosing run."""

    def __init__(self, plan: Plan, values: Values) -> None:
        self._plan = plan
        self._captured = {name: values[name] for name in plan.captured}
        self.empty_outputs = plan.empty_outputs

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs for these inputs."""
        feeds = {**self._captured, **dict(zip(self._plan.inputs, inputs, strict=True))}
        found = self._plan.run(feeds, self._plan.outputs)
        return tuple(found[name] for name in self._plan.outputs)


def _steps(
    nodes: list[ir.Node], opsets: Mapping[str, int], outer: frozenset[str], ready: set[str]
) -> list[Step]:
    steps: list[Step] = []
    refused: dict[tuple[str, str], str] = {}
    for node in nodes:
        names = tuple(None if v is None or not v.name else v.name for v in node.inputs)
        for name in names:
            if name is not None and name not in ready and name not in outer:
                raise ModelError(
                    f"{describe(node)} uses {name!r}, which nothing before it computes: "
                    "the graph is cyclic, unsorted or incomplete"
                )
        try:
            plans = {k: Plan(g, opsets, outer.union(ready)) for k, g in _subgraphs(node)}
            compute = bind(node, _opset(node, opsets))
            outputs = tuple(_name(o) for o in node.outputs)
            steps.append(Step(node, names, outputs, compute, plans))
        except UnsupportedOpError as error:
            refused.setdefault((node.domain, node.op_type), str(error))
        ready.update(_name(o) for o in node.outputs)
    if refused:
        raise UnsupportedOpError("; ".join(refused.values()))
    return steps


def _with_frees(steps: list[Step], keep: frozenset[str]) -> list[Step]:
    last: dict[str, int] = {}
    for number, step in enumerate(steps):
        last |= dict.fromkeys(step.reads.union(filter(None, step.outputs)), number)
    frees: list[list[str]] = [[] for _ in steps]
    for name, number in last.items():
        if name not in keep:
            frees[number].append(name)
    return [replace(step, frees=tuple(names)) for step, names in zip(steps, frees, strict=True)]


def _subgraphs(node: ir.Node) -> list[tuple[str, ir.Graph]]:
    return [
        (name, attribute.as_graph())
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    ]


def _opset(node: ir.Node, opsets: Mapping[str, int]) -> int:
    """The version of the node's domain; a domain that is not imported counts as version 1."""
    return opsets.get(node.domain, opsets.get("ai.onnx", 1) if not node.domain else 1)


def _name(value: ir.Value) -> str:
    return value.name or ""


def _data(name: str, value: ir.Value) -> Array:
    if value.const_value is None:
        raise ModelError(f"initialiser {name!r} has no data")
    return value.const_value.numpy()


def _empty_stack(value: ir.Value) -> Array | None:
    """An output stacked over no iterations of a loop."""
    if value.dtype is None or value.shape is None:
        return None
    dims = [d if isinstance(d, int) else 0 for d in value.shape]
    return np.zeros((0, *dims), value.dtype.numpy())
