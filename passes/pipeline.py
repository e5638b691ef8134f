"""The exact pipeline: one flat list, run to a fix-point, every step verified or undone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime import Session
from infer_runtime.errors import InferError, ModelError, UsageError
from passes.base import Refusal
from passes.compare import EQUAL, Difference, compare_outputs, worst
from passes.config import OptimizeConfig
from passes.deduplicate_initializers import DeduplicateInitializers
from passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from passes.eliminate_identity import EliminateIdentity
from passes.facts import Facts, facts
from passes.feeds import random_feeds
from passes.fold_affine import FoldAffine
from passes.fold_batchnorm import FoldBatchNorm
from passes.fold_constants import FoldConstants
from passes.lift_constants import LiftConstants
from passes.pad_into_conv import PadIntoConv
from passes.remove_unused import RemoveUnused
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir

    from passes.base import Pass

    Feeds = Mapping[str, np.ndarray[Any, Any]]

PASSES: tuple[Pass, ...] = (
    RemoveUnused(),  # first: nobody else should look at dead nodes
    LiftConstants(),  # before everything that asks for a constant
    FoldConstants(),  # before the fusions, whose weights may be computed
    EliminateIdentity(),  # after folding, which makes shapes and casts provable
    PadIntoConv(),  # before the fusions, which then see Conv and its neighbour
    FoldBatchNorm(),
    FoldAffine(),  # after BatchNormalization: Conv, BN, Add folds in this order
    EliminateCommonSubexpressions(),  # after the fusions, which refuse shared producers
    DeduplicateInitializers(),  # last: new constants may equal old ones
    RemoveUnused(),  # what the fusions left
)
MAX_ROUNDS = 10


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
    snapshot: ir.Model  # a copy of the model: cloning for each pass that finds nothing is slow
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
    progress: Callable[[str], None] | None = None,
    passes: Sequence[Pass] = PASSES,
) -> Optimized:
    """Run the passes on a copy until none of them finds anything.

    After each pass that changed something the structure is verified, and the outputs on `feeds`
    (seeded ones by default) are compared with the source's. A pass that breaks either is undone,
    left out from then on, and reported as a refusal.

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
    copy, size = model.clone(), facts(model, with_macs=False)
    run = _Run(copy, size, model, feeds, wanted, config.tolerance)
    for _ in range(MAX_ROUNDS):
        changes = 0
        for item in chosen:
            if progress is not None:
                progress(item.name)
            changes += _step(run, item)
        if not changes:
            break
    return Optimized(run.model, tuple(run.records.values()))


def _choose(text: str, passes: Sequence[Pass]) -> list[Pass]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    known = {p.name for p in passes}
    for name in names:
        if name.removeprefix("-") not in known:
            raise UsageError(f"--passes: no pass {name!r}; there are {', '.join(sorted(known))}")
    left_out = {name[1:] for name in names if name.startswith("-")}
    asked = {name for name in names if not name.startswith("-")} or known
    return [p for p in passes if p.name in asked - left_out]


def _step(run: _Run, item: Pass) -> int:
    """Run one pass; returns its changes, 0 when it was undone."""
    if item.name in run.banned:
        return 0
    start = time.perf_counter()
    before = run.facts
    broken, found, changes = None, EQUAL, 0
    try:
        with np.errstate(all="ignore"):  # the comparison judges what comes of it
            outcome = item.apply(run.model)
        changes, refusals = outcome.changes, outcome.refusals
        if changes:
            verify(run.model)
            found = _difference(run)
    except (ModelError, ValueError) as error:
        broken, refusals = str(error), ()
    if not found.max_rel <= run.tolerance:
        broken = f"it changed the outputs: max rel {found.max_rel:.3g}, limit {run.tolerance:g}"
    if broken is not None:
        run.model, changes, found = run.snapshot.clone(), 0, EQUAL
        run.banned.add(item.name)
        refusals = (*refusals, Refusal("-", item.name, f"the pass was undone: {broken}"))
    if changes:
        run.facts, run.snapshot = facts(run.model, with_macs=False), run.model.clone()
    sides = (before, run.facts)
    _record(run, item.name, time.perf_counter() - start, changes, sides, found, refusals)
    return changes


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
    found: Difference,
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
    if changes:
        record.max_abs_error, record.sqnr_db = found.max_abs, found.sqnr_db
    record.refusals = tuple(dict.fromkeys((*record.refusals, *refusals)))


def _moved(pair: tuple[int, int], change: int) -> tuple[int, int]:
    """Add this round's own change: what other passes did in between is not this one's."""
    return pair[0], pair[1] + change
