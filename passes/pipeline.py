"""The exact pipeline: one flat list, run to a fix-point, every step verified or undone."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_runtime import Session
from infer_runtime.errors import UsageError
from passes.base import EXTERNAL
from passes.config import OptimizeConfig
from passes.default import PASSES
from passes.feeds import random_feeds
from passes.proof import Proof
from passes.rounds import Rounds
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from passes.base import Pass
    from passes.proof import Feeds
    from passes.rounds import PassRecord

MAX_ROUNDS = 10
LARGE = 1 << 26  # bytes of weights: below, collecting a long graph takes longer than it is worth


@dataclass(frozen=True)
class Optimized:
    """The optimised model and the ledger lines of the passes that ran."""

    model: ir.Model
    records: tuple[PassRecord, ...]


def optimize(
    model: ir.Model,
    config: OptimizeConfig | None = None,
    *,
    feeds: Sequence[Feeds] | None = None,
    progress: Callable[[str], None] | None = None,
    passes: Sequence[Pass] = PASSES,
) -> Optimized:
    """Run the passes of the level on a copy until none of them finds anything.

    After each pass the structure is verified, after each round the outputs on `feeds` (seeded
    ones by default) are compared with the source's. What breaks either is undone and reported as
    a refusal: single rewrites of a rule, or a whole pass, which is left out from then on.

    Raises:
        UsageError: an unknown pass name.
        ModelError: the model is not valid to begin with.

    """
    config = config or OptimizeConfig()
    chosen = _choose(config, passes)
    verify(model)
    if not chosen:
        return Optimized(model.clone(), ())
    feeds = feeds or [random_feeds(Session(model).inputs, config.seed)]
    own = [p for p in chosen if p.level < EXTERNAL]
    with _collecting_rarely():
        rounds = Rounds(model, Proof.of(model, feeds, config.tolerance), progress)
        _to_fix_point(rounds, own)
        for item in chosen:
            if item.level >= EXTERNAL and rounds.run([item]):
                _to_fix_point(rounds, own)
    return Optimized(rounds.model, tuple(rounds.records.values()))


def _choose(config: OptimizeConfig, passes: Sequence[Pass]) -> list[Pass]:
    """Names that are asked for run whatever the level; names with a minus never do."""
    names = [part.strip() for part in config.passes.split(",") if part.strip()]
    known = {p.name for p in passes}
    for name in names:
        if name.removeprefix("-") not in known:
            raise UsageError(f"--passes: no pass {name!r}; there are {', '.join(sorted(known))}")
    left_out = {name[1:] for name in names if name.startswith("-")}
    asked = {name for name in names if not name.startswith("-")}
    asked = asked or {p.name for p in passes if p.level <= config.level}
    return [p for p in passes if p.name in asked - left_out]


def _to_fix_point(rounds: Rounds, passes: Sequence[Pass]) -> None:
    for _ in range(MAX_ROUNDS):
        if not rounds.run(passes):
            break
        if rounds.weight_bytes > LARGE:
            gc.collect()  # graphs are cycles: the copies of this round hold its old weights


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    """No collector while a graph of many small objects is built: it takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
