"""Rounds of passes: proven together; taken apart, and partly undone, when the proof fails."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.errors import LimitError
from passes.base import Outcome, Refusal, RewriteRule, all_nodes, walked_before
from passes.bisect import keep_good
from passes.compare import EQUAL
from passes.facts import Facts, facts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from passes.base import Pass
    from passes.compare import Difference
    from passes.proof import Proof


@dataclass
class PassRecord:
    """What one pass did over all rounds; pairs are before its first run and after its changes."""

    name: str
    seconds: float
    changes: int
    nodes: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    max_abs_error: float | None = 0.0
    sqnr_db: float | None = None
    refusals: tuple[Refusal, ...] = ()
    fired: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Line:
    """One run of one pass, before it is known whether it stays."""

    name: str
    seconds: float
    before: Facts
    after: Facts
    outcome: Outcome


class Rounds:
    """The model on its way, with the last state of it that was proven.

    A round is proven as a whole: running the model costs more than most passes. Only when that
    fails is it done again from the proven state, pass by pass.
    """

    def __init__(
        self, model: ir.Model, proof: Proof, progress: Callable[[str], None] | None = None
    ) -> None:
        self.model = model.clone()
        self.records: dict[str, PassRecord] = {}
        self._proven = model
        self._facts = facts(model, with_macs=False)
        self._proof = proof
        self._progress = progress or (lambda _: None)
        self._banned: set[str] = set()
        self._walk: tuple[ir.Model, list[ir.Node]] | None = None

    @property
    def weight_bytes(self) -> int:
        """Of the model as it is now."""
        return self._facts.weight_bytes

    def run(self, passes: Sequence[Pass]) -> int:
        """Run each pass once; returns how many changes stay."""
        before = self._facts
        try:
            lines = [self._apply(item) for item in passes if item.name not in self._banned]
            changes = sum(line.outcome.changes for line in lines)
            error = self._proof.check_outputs(self.model) if changes else EQUAL
        except (LimitError, MemoryError):
            raise
        except Exception:  # noqa: BLE001 - whatever broke shows again, with its name, one by one
            self._facts = before
            self.model = self._proven.clone()
            return sum(self._run_alone(item) for item in passes)
        for line in lines:
            self._record(line, error)
        if changes:
            self._proven = self.model.clone()
        return changes

    def _apply(self, item: Pass) -> _Line:
        """Run a pass on the model and check the structure."""
        self._progress(item.name)
        start, before = time.perf_counter(), self._facts
        nodes = self._nodes()
        # The comparison judges what comes of bad numbers.
        with np.errstate(all="ignore"), walked_before(self.model, nodes):
            outcome = item.apply(self.model)
        if outcome.changes:
            self._walk = None
            self._proof.check_structure(self.model)
            self._facts = facts(self.model, with_macs=False)
        return _Line(item.name, time.perf_counter() - start, before, self._facts, outcome)

    def _nodes(self) -> list[ir.Node]:
        """All nodes, walked again only when the model is another one or was changed."""
        if self._walk is None or self._walk[0] is not self.model:
            self._walk = self.model, list(all_nodes(self.model))
        return self._walk[1]

    def _run_alone(self, item: Pass) -> int:
        """Run a pass and prove it; undo the rewrites that break the proof, or else all of it."""
        if item.name in self._banned:
            return 0
        start, before = time.perf_counter(), self._facts
        try:
            line = self._apply(item)
            error = self._proof.check_outputs(self.model) if line.outcome.changes else EQUAL
        except (LimitError, MemoryError):
            raise
        except Exception as broken:  # noqa: BLE001 - a pass that fails is undone, and says so
            error, outcome = self._undo(item, _text(broken))
            line = _Line(item.name, 0.0, before, self._facts, outcome)
        self._record(replace(line, seconds=time.perf_counter() - start), error)
        self._proven = self.model.clone()  # with the marks of what was undone
        return line.outcome.changes

    def _undo(self, item: Pass, reason: str) -> tuple[Difference, Outcome]:
        """Back to the proven state, and forward again by the rewrites that keep it proven."""
        kept = keep_good(item, self._proven, self._proof) if _divides(item) else None
        if kept is None:
            self._banned.add(item.name)
            refusal = Refusal("-", item.name, f"the pass was undone: {reason}")
            self.model, error, outcome = self._proven.clone(), EQUAL, Outcome(0, (refusal,))
        else:
            self.model, error, outcome = kept
        self._facts = facts(self.model, with_macs=False)
        return error, outcome

    def _record(self, line: _Line, error: Difference) -> None:
        before, after, outcome = line.before, line.after, line.outcome
        record = self.records.get(line.name)
        if record is None:
            record = PassRecord(
                line.name, 0.0, 0, (before.nodes,) * 2, (before.parameters,) * 2,
                (before.weight_bytes,) * 2,
            )  # fmt: skip
            self.records[line.name] = record
        record.seconds += line.seconds
        record.changes += outcome.changes
        record.nodes = _moved(record.nodes, after.nodes - before.nodes)
        record.parameters = _moved(record.parameters, after.parameters - before.parameters)
        record.bytes = _moved(record.bytes, after.weight_bytes - before.weight_bytes)
        if outcome.changes:
            record.max_abs_error, record.sqnr_db = error.max_abs, error.sqnr_db
        record.refusals = tuple(dict.fromkeys((*record.refusals, *outcome.refusals)))
        record.fired += tuple(f"{f.node} ({f.op})" for f in outcome.fired)


def _divides(item: Pass) -> bool:
    """Can some rewrites of the pass be left out? Not where it has an order of its own."""
    return isinstance(item, RewriteRule) and type(item).apply is RewriteRule.apply


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _moved(pair: tuple[int, int], change: int) -> tuple[int, int]:
    """Add this round's own change: what other passes did in between is not this one's."""
    return pair[0], pair[1] + change
