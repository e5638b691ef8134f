"""The steps that some wanted values need, on numbered slots: the loop of every run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.evaluate import VALUE_ERRORS, failure, outputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from infer_runtime.plan import Plan, Step

    # Called with a step, its results and its seconds.
    After = Callable[[Step, Sequence[Any], float], None]
    # kernel (None: the step has subgraphs), slots of inputs and outputs, slots to clear, the step
    Instruction = tuple[
        Callable[..., Any] | None, tuple[int, ...], tuple[int, ...], tuple[int, ...], Step
    ]

_ABSENT = 0  # the slot of inputs that are not given: it holds None
_UNUSED = 1  # the slot of outputs without a name


class Program:
    """A plan cut down to what the wanted values need.

    Values live in a list; each name has a slot. Constants are in the list that every run starts
    from, so a run copies references, not data.
    """

    def __init__(self, plan: Plan, wanted: tuple[str, ...], *, whole: bool = False) -> None:
        steps = plan.steps if whole else _needed(plan.steps, wanted)
        reads = {*wanted}.union(*(s.reads for s in steps))
        self.captured = frozenset(reads - plan.known)
        slots = {"": _UNUSED}
        for name in [*plan.inputs, *sorted(self.captured), *(o for s in steps for o in s.outputs)]:
            slots.setdefault(name, len(slots) + 1)
        for name in reads.intersection(plan.constants):
            slots.setdefault(name, len(slots) + 1)
        self._start: list[Any] = [None] * (len(slots) + 1)
        for name in plan.constants.keys() & slots.keys():
            self._start[slots[name]] = plan.constants[name]
        self._slots = slots
        self._wanted = [(name, slots[name]) for name in wanted]
        self._settled = plan.settled
        keep = {*wanted, *plan.constants, *plan.inputs} | self.captured
        self._code = list(_instructions(steps, slots, keep))

    def run(self, feeds: Mapping[str, Any], after: After | None = None) -> dict[str, Any]:
        """The wanted values."""
        values = self._loaded(feeds)
        self._execute(values, after)
        return {name: values[slot] for name, slot in self._wanted}

    def memory_bound(self, feeds: Mapping[str, Any]) -> int:
        """Bytes of the constants and of the most that lives at once, counting views once."""
        values = self._loaded(feeds)
        sizes = [_held(values)]
        self._execute(values, lambda *_: sizes.append(_held(values)))
        return max(sizes)

    def _loaded(self, feeds: Mapping[str, Any]) -> list[Any]:
        values = self._start.copy()
        for name, value in feeds.items():
            if name in self._slots:
                values[self._slots[name]] = value
        return values

    def _execute(self, values: list[Any], after: After | None) -> None:
        settled, clock = self._settled, time.perf_counter
        for compute, given, made, frees, step in self._code:
            start = clock() if after is not None else 0.0
            try:
                if compute is None:
                    result = self._with_subgraphs(step, values)
                else:
                    result = compute(*[values[slot] for slot in given])
                if len(made) == 1 and type(result) is np.ndarray:
                    values[made[0]] = result
                else:
                    for slot, part in zip(made, outputs_of(result, len(made)), strict=False):
                        values[slot] = settled(part)
            except VALUE_ERRORS as error:
                raise failure(step.label, [values[slot] for slot in given], error) from error
            if after is not None:
                after(step, [values[slot] for slot in made], clock() - start)
            for slot in frees:
                values[slot] = None

    def _with_subgraphs(self, step: Step, values: list[Any]) -> Any:
        slots = self._slots
        subgraphs = {
            key: Subgraph(plan, {name: values[slots[name]] for name in plan.captured})
            for key, plan in step.subplans.items()
        }
        inputs = [values[slots[name] if name else _ABSENT] for name in step.inputs]
        return step.compute(*inputs, **subgraphs)


class Subgraph:
    """A subgraph as a function; what it captures comes from the enclosing run."""

    def __init__(self, plan: Plan, captured: Mapping[str, Any]) -> None:
        self._plan = plan
        self._captured = captured
        self._program = plan.program(tuple(plan.outputs))
        self.empty_outputs = tuple(map(plan.settled, plan.empty_outputs))
        self.settled = plan.settled

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """The outputs for these inputs."""
        feeds = {**self._captured, **dict(zip(self._plan.inputs, inputs, strict=True))}
        found = self._program.run(feeds)
        return tuple(found[name] for name in self._plan.outputs)


def _needed(steps: Sequence[Step], wanted: Iterable[str]) -> list[Step]:
    """The steps that the wanted values depend on."""
    reads, kept = {*wanted}, []
    for step in reversed(steps):
        if not reads.isdisjoint(step.outputs):
            reads |= step.reads
            kept.append(step)
    return kept[::-1]


def _instructions(
    steps: Sequence[Step], slots: Mapping[str, int], keep: set[str]
) -> Iterable[Instruction]:
    """Each step with its slots, and those that nobody reads after it."""
    last = {name: i for i, s in enumerate(steps) for name in s.reads.union(s.outputs)}
    frees: list[list[int]] = [[] for _ in steps]
    for name, number in last.items():
        if name not in keep and name:
            frees[number].append(slots[name])
    for step, freed in zip(steps, frees, strict=True):
        given = tuple(slots[name] if name else _ABSENT for name in step.inputs)
        made = tuple(slots[name] for name in step.outputs)
        yield None if step.subplans else step.compute, given, made, tuple(freed), step


def _held(values: Iterable[Any]) -> int:
    """Bytes behind the values; a view counts as the array it looks into."""
    owners = {}
    for value in values:
        owner = value
        while isinstance(owner, np.ndarray) and isinstance(owner.base, np.ndarray):
            owner = owner.base
        if isinstance(owner, np.ndarray):
            owners[id(owner)] = owner.nbytes
    return sum(owners.values())
