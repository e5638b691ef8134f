"""The exact pipeline: one flat list, run to a fix-point, every step verified or undone."""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime import Session
from infer_runtime.errors import InferError, ModelError, UsageError
from passes.base import Refusal
from passes.compare import EQUAL, Difference, compare_outputs, worst
from passes.config import OptimizeConfig
from passes.default import PASSES
from passes.facts import Facts, facts
from passes.feeds import random_feeds
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir

    from passes.base import Pass

    Feeds = Mapping[str, np.ndarray[Any, Any]]
    Progress = Callable[[str], None]

MAX_ROUNDS = 10
OBJECTS_BETWEEN_COLLECTIONS = 200_000
# What a pass raises that takes something for granted which is not so; it is undone and reported.
FAULTS = (ModelError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)


@dataclass
class PassRecord:
    """What one pass did over all rounds; pairs are before its first run and after its changes."""

    name: str
    seconds: float
    changes: int
    nodes: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    max_abs_error: float | None
    sqnr_db: float | None
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Optimized:
    """The optimised model and the ledger lines of the passes that ran."""

    model: ir.Model
    records: tuple[PassRecord, ...]


@dataclass
class _Run:
    """State of one optimisation."""

    model: ir.Model
    facts: Facts
    feeds: Sequence[Feeds]
    wanted: list[dict[str, Any]]
    tolerance: float
    records: dict[str, PassRecord] = field(default_factory=dict)
    banned: set[str] = field(default_factory=set)


def optimize(
    model: ir.Model,
    config: OptimizeConfig | None = None,
    *,
    feeds: Sequence[Feeds] | None = None,
    progress: Progress | None = None,
    passes: Sequence[Pass] = PASSES,
) -> Optimized:
    """Run the passes on a copy until none of them finds anything.

    After each pass that changed something the structure is verified, and after each round the
    outputs on `feeds` (seeded ones by default) are compared with the source's. Where either fails,
    it starts again and compares after each pass: one that breaks the model is undone, left out from
    then on, and reported as a refusal.

    Raises:
        UsageError: an unknown pass name.
        ModelError: the model is not valid to begin with.

    """
    config = config or OptimizeConfig()
    chosen = _choose(config.passes, passes)
    verify(model)
    session = Session(model)
    feeds = feeds or [random_feeds(session.inputs, config.seed)]
    wanted = [session.run(f) for f in feeds]
    size = facts(model, with_macs=False)
    with _rare_collections():
        for rounds in (_rounds, _careful_rounds):
            run = _Run(model.clone(), size, feeds, wanted, config.tolerance)
            if rounds(run, chosen, progress or (lambda name: None)):  # noqa: ARG005
                break
    return Optimized(run.model, tuple(run.records.values()))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A graph is many small objects that live long: looking for dead ones takes half the time."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _choose(text: str, passes: Sequence[Pass]) -> list[Pass]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    known = {p.name for p in passes}
    for name in names:
        if name.removeprefix("-") not in known:
            raise UsageError(f"--passes: no pass {name!r}; there are {', '.join(sorted(known))}")
    left_out = {name[1:] for name in names if name.startswith("-")}
    asked = {name for name in names if not name.startswith("-")} or known
    return [p for p in passes if p.name in asked - left_out]


def _rounds(run: _Run, chosen: Sequence[Pass], progress: Progress) -> bool:
    """Run the passes in turn; False when the outputs after a round are not those of the source."""
    for _ in range(MAX_ROUNDS):
        changed = []
        try:
            for item in chosen:
                progress(item.name)
                changed += [item.name] * (_step(run, item) > 0)
            if not changed:
                break
            found = _difference(run)
        except FAULTS:
            return False
        if not found.max_rel <= run.tolerance:
            return False
        for name in dict.fromkeys(changed):
            _settle(run, name, found)
    return True


def _careful_rounds(run: _Run, chosen: Sequence[Pass], progress: Progress) -> bool:
    """Compare after each pass, which finds the one to blame; a copy for each makes it slow."""
    for _ in range(MAX_ROUNDS):
        changes = 0
        for item in chosen:
            progress(item.name)
            changes += _careful_step(run, item)
        if not changes:
            break
    return True


def _step(run: _Run, item: Pass) -> int:
    """Run one pass and verify the structure; returns its changes."""
    start, before = time.perf_counter(), run.facts
    with np.errstate(all="ignore"):  # the comparison judges what comes of it
        outcome = item.apply(run.model)
    if outcome.changes:
        verify(run.model)
        run.facts = facts(run.model, with_macs=False)
    sides = (before, run.facts)
    _record(run, item.name, time.perf_counter() - start, outcome.changes, sides, outcome.refusals)
    return outcome.changes


def _careful_step(run: _Run, item: Pass) -> int:
    """Run one pass and compare the outputs; returns its changes, 0 when it was undone."""
    if item.name in run.banned:
        return 0
    snapshot, records, size = run.model.clone(), deepcopy(run.records), run.facts
    broken, found, changes = None, EQUAL, 0
    try:
        changes = _step(run, item)
        found = _difference(run) if changes else EQUAL
    except FAULTS as error:
        broken = str(error)
    if not found.max_rel <= run.tolerance:
        broken = f"it changed the outputs: max rel {found.max_rel:.3g}, limit {run.tolerance:g}"
    if broken is None:
        if changes:
            _settle(run, item.name, found)
        return changes
    run.model, run.records, run.facts = snapshot, records, size
    run.banned.add(item.name)
    refusal = Refusal("-", item.name, f"the pass was undone: {broken}")
    _record(run, item.name, 0.0, 0, (size, size), (refusal,))
    return 0


def _settle(run: _Run, name: str, found: Difference) -> None:
    """Note the difference after a pass, or after the round that it was part of."""
    run.records[name].max_abs_error = found.max_abs
    run.records[name].sqnr_db = found.sqnr_db


def _difference(run: _Run) -> Difference:
    """The largest difference from the source over all feeds."""
    try:
        session = Session(run.model)
        found = [
            worst(compare_outputs(wanted, session.run(feed)))
            for feed, wanted in zip(run.feeds, run.wanted, strict=True)
        ]
    except InferError as error:
        raise ModelError(str(error)) from error
    return max(found, key=lambda d: d.max_rel)


def _record(
    run: _Run,
    name: str,
    seconds: float,
    changes: int,
    sides: tuple[Facts, Facts],
    refusals: tuple[Refusal, ...],
) -> None:
    before, after = sides
    record = run.records.get(name)
    if record is None:
        record = PassRecord(
            name, 0.0, 0, (before.nodes,) * 2, (before.parameters,) * 2,
            (before.weight_bytes,) * 2, 0.0, None, (),
        )  # fmt: skip
        run.records[name] = record
    record.seconds += seconds
    record.changes += changes
    record.nodes = _moved(record.nodes, after.nodes - before.nodes)
    record.parameters = _moved(record.parameters, after.parameters - before.parameters)
    record.bytes = _moved(record.bytes, after.weight_bytes - before.weight_bytes)
    record.refusals = tuple(dict.fromkeys((*record.refusals, *refusals)))


def _moved(pair: tuple[int, int], change: int) -> tuple[int, int]:
    """Add this round's own change: what other passes did in between is not this one's."""
    return pair[0], pair[1] + change
