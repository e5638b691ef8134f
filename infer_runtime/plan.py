"""A graph as a list of steps: kernels bound once, every value freed after its last use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.errors import ModelError, UnsupportedOpError
from infer_runtime.evaluate import bind, call, unsupported
from infer_runtime.ops.control import CONTROL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    Values = dict[str, Any]
    Observer = Callable[[str, np.ndarray[Any, Any]], None]


@dataclass(frozen=True)
class Step:
    """A node, its bound kernel, and the values nobody needs after it."""

    node: ir.Node
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    compute: Callable[..., Any]
    subplans: Mapping[str, Plan]
    frees: tuple[str, ...]


class Plan:
    """The static plan of one graph; subgraphs have plans of their own.

    Raises:
        ModelError: a node uses a value before it is computed, or that nobody computes.
        UnsupportedOpError: operators without a kernel, all of them in one error.

    """

    def __init__(
        self,
        graph: ir.Graph,
        opsets: Mapping[str, int],
        outer: frozenset[str] = frozenset(),
    ) -> None:
        self.inputs = [v.name or "" for v in graph.inputs]
        self.outputs = [v.name or "" for v in graph.outputs]
        self.constants = {name: _constant(name, v) for name, v in graph.initializers.items()}
        self._outer = outer
        self.captured: set[str] = {name for name in self.outputs if name in outer}
        self._produced = {o.name or "" for n in graph for o in n.outputs}
        self.steps = self._build(list(graph), opsets)

    def knows(self, name: str) -> bool:
        """Is `name` a value of this graph?"""
        return name in self._produced or name in self.constants or name in self.inputs

    def run(
        self, feeds: Mapping[str, Any], wanted: Sequence[str], observe: Observer | None = None
    ) -> Values:
        """Compute the wanted values from the feeds (and, in a subgraph, the captured values)."""
        values: Values = {**self.constants, **feeds}
        if observe is not None:
            for name in feeds:
                observe(name, values[name])
        keep = set(wanted)
        for step in self.steps:
            results = self._run_step(step, values)
            for name, result in zip(step.outputs, results, strict=False):
                if name:
                    values[name] = result
                    if observe is not None:
                        observe(name, result)
            for name in step.frees:
                if name not in keep:
                    values.pop(name, None)
        return values

    def _run_step(self, step: Step, values: Values) -> tuple[Any, ...]:
        inputs = [None if n is None else values[n] for n in step.inputs]
        if not step.subplans:
            return call(step.node, step.compute, inputs)
        branches = {k: _closure(plan, values) for k, plan in step.subplans.items()}

        def compute(*given: Any) -> Any:
            return step.compute(*given, **branches)

        return call(step.node, compute, inputs)

    def _build(self, nodes: list[ir.Node], opsets: Mapping[str, int]) -> list[Step]:
        opset = opsets.get("", 1)
        ready = {*self.inputs, *self.constants, *self._outer}
        drafts, missing = [], []
        for node in nodes:
            try:
                drafts.append(self._draft(node, opsets, ready))
            except UnsupportedOpError:
                missing.append(node)
            ready |= {o.name or "" for o in node.outputs}
        if missing:
            raise unsupported(missing, opset)
        return self._with_frees(drafts)

    def _draft(self, node: ir.Node, opsets: Mapping[str, int], ready: set[str]) -> Step:
        names = tuple(None if v is None or not v.name else v.name for v in node.inputs)
        for name in names:
            if name is not None and name not in ready:
                raise ModelError(
                    f"node {node.name or '?'} ({node.op_type}) uses {name!r}, which nothing "
                    "before it computes; the graph is cyclic, unsorted or incomplete"
                )
        self.captured |= {n for n in names if n in self._outer}
        outputs = tuple(o.name or "" for o in node.outputs)
        graphs = _subgraphs(node)
        if graphs:
            scope = frozenset(ready)
            plans = {k: Plan(g, opsets, scope) for k, g in graphs.items()}
            for plan in plans.values():
                self.captured |= plan.captured & self._outer
            return Step(node, names, outputs, _bind_control(node, opsets), plans, ())
        compute = bind(node, opsets.get(node.domain, opsets.get("", 1)))
        return Step(node, names, outputs, compute, {}, ())

    def _with_frees(self, drafts: list[Step]) -> list[Step]:
        last: dict[str, int] = {}
        for number, step in enumerate(drafts):
            used = {n for n in step.inputs if n} | {n for n in step.outputs if n}
            for plan in step.subplans.values():
                used |= plan.captured
            last |= dict.fromkeys(used, number)
        frees: list[list[str]] = [[] for _ in drafts]
        for name, number in last.items():
            if name not in self.constants and name not in self._outer:
                frees[number].append(name)
        return [
            Step(s.node, s.inputs, s.outputs, s.compute, s.subplans, tuple(f))
            for s, f in zip(drafts, frees, strict=True)
        ]


def _closure(plan: Plan, values: Values) -> Callable[..., tuple[Any, ...]]:
    """A subgraph as a function of its inputs; outer values come from the enclosing run."""
    captured = {name: values[name] for name in plan.captured if name in values}

    def run(*inputs: Any) -> tuple[Any, ...]:
        feeds = {**captured, **dict(zip(plan.inputs, inputs, strict=False))}
        found = plan.run(feeds, plan.outputs)
        return tuple(found[name] for name in plan.outputs)

    return run


def _subgraphs(node: ir.Node) -> dict[str, ir.Graph]:
    return {
        name: a.as_graph()
        for name, a in node.attributes.items()
        if a.type == ir.AttributeType.GRAPH
    }


def _bind_control(node: ir.Node, opsets: Mapping[str, int]) -> Callable[..., Any]:
    from infer_runtime.evaluate import attribute_values

    kernel = CONTROL.get(node.op_type) if not node.domain else None
    if kernel is None:
        raise unsupported([node], opsets.get("", 1))
    attributes = {
        k: v for k, v in attribute_values(node).items() if not isinstance(v, ir.Graph)
    }

    def compute(*inputs: Any, **branches: Any) -> Any:
        return kernel(*inputs, **attributes, **branches)

    return compute


def _constant(name: str, value: ir.Value) -> Any:
    if value.const_value is None:
        raise ModelError(f"initialiser {name!r} has no data")
    return value.const_value.numpy()
