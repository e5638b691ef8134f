"""A graph as a list of steps: kernels bound once, constants folded once, values freed early."""

from __future__ import annotations

import graphlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import InferError, ModelError, UnsupportedOpError
from infer_runtime.evaluate import (
    VALUE_ERRORS,
    bind,
    describe,
    outputs_of,
    reads_only_first,
    settled,
)
from infer_runtime.ops.prepared import prepared
from infer_runtime.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from infer_runtime.arrays import Array
    from infer_runtime.program import After

    Values = dict[str, Any]

# Constants computed at load may be this much larger than what they are computed from.
_GROWTH = 8
_SMALL = 1 << 16
# Without inputs, or drawing from a state: not the same value twice.
_RANDOM = frozenset({
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """A node without its graph: names, the bound kernel, the plans of its subgraphs."""

    label: str
    op: str
    name: str
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    compute: Callable[..., Any]
    subplans: Mapping[str, Plan]

    @property
    def reads(self) -> set[str]:
        """All values that the step needs, also those that its subgraphs take from outside."""
        own = {name for name in self.inputs if name is not None}
        return own.union(*(plan.captured for plan in self.subplans.values()))


@dataclass(frozen=True)
class Setting:
    """How the nodes of all graphs of a model are bound, and what becomes of their constants."""

    opsets: Mapping[str, int]
    bind: Callable[[ir.Node, int], Callable[..., Any]] = bind
    settled: Callable[[Any], Any] = settled  # what a kernel returned -> a value of the run
    parameters: frozenset[str] = frozenset()  # initialisers that each run is given anew


class Plan:
    """The static plan of one graph; subgraphs have plans of their own.

    Args:
        graph: in any order, with names that are unique in their scope.
        setting: opset versions and the array library.
        outer: for a subgraph, the values that it may take from the graphs around it.

    Raises:
        ModelError: a cycle, a value that nothing computes, a name used twice, missing data.
        UnsupportedOpError: operators without a kernel, all of them in one error.

    """

    def __init__(
        self, graph: ir.Graph, setting: Setting, outer: frozenset[str] = frozenset()
    ) -> None:
        self.inputs = [_name(v) for v in graph.inputs]
        self.inputs += [n for n in graph.initializers if n in setting.parameters - {*self.inputs}]
        self.outputs = [_name(v) for v in graph.outputs]
        self.settled = setting.settled
        self.constants = {
            name: setting.settled(_data(name, v))
            for name, v in graph.initializers.items()
            if name not in setting.parameters
        }
        _check_names(graph, {*self.inputs, *self.constants})
        self.known = {*self.inputs, *self.constants, *(_name(o) for n in graph for o in n.outputs)}
        nodes = _ordered(list(graph), {*self.inputs, *self.constants} | outer)
        folds = {*self.constants} - {*self.inputs}
        given = {*self.constants}
        self.steps = list(_steps(nodes, setting, self, outer.union(self.known), folds))
        self.folded = [name for name in self.constants if name not in given]
        reads = {*self.outputs}.union(*(step.reads for step in self.steps))
        if unknown := sorted({*self.outputs} - self.known - outer):
            raise ModelError(f"output {unknown[0]!r} is computed by no node")
        self.captured = frozenset(reads - self.known)
        self.empty_outputs = tuple(_empty_stack(v) for v in graph.outputs)
        self._programs: dict[tuple[tuple[str, ...], bool], Program] = {}

    def run(
        self, feeds: Mapping[str, Any], wanted: Sequence[str], after: After | None = None
    ) -> Values:
        """Compute the wanted values from the feeds; with `after`, all others too."""
        return self.program(tuple(wanted), after is not None).run(feeds, after)

    def program(self, wanted: tuple[str, ...], whole: bool = False) -> Program:
        """What computes these values and nothing else (or all steps); made once."""
        if (wanted, whole) not in self._programs:
            self._programs[wanted, whole] = Program(self, wanted, whole=whole)
        return self._programs[wanted, whole]

    def memory_bound(self, feeds: Mapping[str, Any], wanted: Sequence[str]) -> int:
        """Bytes of the constants and of the most that lives at once, counting views once."""
        return self.program(tuple(wanted)).memory_bound(feeds)


def _check_names(graph: ir.Graph, given: set[str]) -> None:
    """Every value is defined once."""
    seen = set(given)
    for node in graph:
        for output in node.outputs:
            if output.name in seen:
                raise ModelError(f"{describe(node)} computes {output.name!r}, which exists already")
            if output.name:
                seen.add(output.name)


def _ordered(nodes: list[ir.Node], ready: set[str]) -> list[ir.Node]:
    """The nodes so that each follows what it reads.

    Raises:
        ModelError: a cycle, or a value that nothing computes.

    """
    made = {_name(o): i for i, node in enumerate(nodes) for o in node.outputs}
    is_sorted, needs = True, []
    for i, node in enumerate(nodes):
        needed: set[int] = set()
        for name in _read_names(node):
            if name in made and name not in ready:
                needed.add(made[name])
                is_sorted &= made[name] < i
        _check_inputs(node, made, ready)
        needs.append(needed)
    if is_sorted:
        return nodes
    try:
        order = graphlib.TopologicalSorter(dict(enumerate(needs))).static_order()
        return [nodes[i] for i in order]
    except graphlib.CycleError as error:
        circle = ", ".join(describe(nodes[i]) for i in error.args[1][:4])
        raise ModelError(f"the graph has a cycle through {circle}") from error


def _check_inputs(node: ir.Node, made: Mapping[str, int], ready: set[str]) -> None:
    for value in node.inputs:
        if value is not None and value.name and value.name not in made and value.name not in ready:
            raise ModelError(f"{describe(node)} uses {value.name!r}, which nothing computes")


def _read_names(node: ir.Node) -> Iterable[str]:
    """The names that a node and the nodes in its subgraphs read."""
    for value in node.inputs:
        if value is not None and value.name:
            yield value.name
    for _, graph in _subgraphs(node):
        for inner in graph:
            yield from _read_names(inner)
        yield from (_name(v) for v in graph.outputs)


def _steps(
    nodes: list[ir.Node], setting: Setting, plan: Plan, visible: frozenset[str], folds: set[str]
) -> Iterable[Step]:
    """What must run each time; constants that follow from constants go into the plan instead."""
    refused: dict[tuple[str, str], str] = {}
    for node in nodes:
        try:
            step = _step(node, setting, visible)
        except UnsupportedOpError as error:
            refused.setdefault((node.domain, node.op_type), str(error))
            continue
        if not refused and _folded(step, plan, folds):
            continue
        yield _prepared(step, plan, folds) if setting.bind is bind else step
    if refused:
        raise UnsupportedOpError("; ".join(refused.values()))


def _step(node: ir.Node, setting: Setting, visible: frozenset[str]) -> Step:
    names = tuple(None if v is None or not v.name else v.name for v in node.inputs)
    if reads_only_first(node):
        names = names[:1]
    plans = {k: Plan(g, setting, visible) for k, g in _subgraphs(node)}
    compute = setting.bind(node, _opset(node, setting.opsets))
    outputs = tuple(_name(o) for o in node.outputs)
    return Step(describe(node), node.op_type, node.name or "", names, outputs, compute, plans)


def _folded(step: Step, plan: Plan, folds: set[str]) -> bool:
    """Compute a step whose inputs are all constant; False when it must stay."""
    if step.subplans or step.op in _RANDOM or not folds.issuperset(filter(None, step.inputs)):
        return False
    inputs = [None if name is None else plan.constants[name] for name in step.inputs]
    try:
        with np.errstate(all="ignore"):
            results = outputs_of(step.compute(*inputs), len(step.outputs))
    except (*VALUE_ERRORS, InferError):
        return False  # if it is needed, the run reports it
    if _size(results) > max(_SMALL, _GROWTH * _size(inputs)):
        return False
    for name, result in zip(step.outputs, results, strict=False):
        plan.constants[name] = plan.settled(result)
        folds.add(name)
    return True


def _prepared(step: Step, plan: Plan, folds: set[str]) -> Step:
    """The step without the work that only depends on constants."""
    others = step.inputs[1:]
    if len(step.outputs) != 1 or not folds.issuperset(filter(None, others)):
        return step
    constants = [None if name is None else plan.constants[name] for name in others]
    return replace(step, compute=prepared(step.compute, constants))


def _size(values: Iterable[Any]) -> int:
    return sum(getattr(v, "nbytes", 0) for v in values)


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
    try:
        return value.const_value.numpy()
    except (AssertionError, OSError, TypeError, ValueError) as error:
        raise ModelError(f"initialiser {name!r} has no readable data: {error}") from error


def _empty_stack(value: ir.Value) -> Array | None:
    """An output stacked over no iterations of a loop."""
    if value.dtype is None or value.shape is None:
        return None
    dims = [d if isinstance(d, int) and d > 0 else 0 for d in value.shape]
    return np.zeros((0, *dims), value.dtype.numpy())
