"""One output of two models over all samples, and the tolerance that it is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.fidelity import Fidelity
from infer_tool.metrics import is_classifier
from infer_tool.report.model import OutputCheck
from passes.compare import WORST, difference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infer_tool.config import Verify

    Array = np.ndarray[Any, Any]

NONFINITE = ("same", "forbid", "ignore")
DIGITS = 2  # of the tolerance that would pass, rounded up


@dataclass(frozen=True)
class Tolerances:
    """What an output may differ by: its own absolute limit, else what holds for all of them."""

    relative: float
    min_sqnr: float | None
    absolute: Mapping[str, float]

    def passes(self, stats: OutputStats) -> bool:
        """NaN passes nothing."""
        if stats.name in self.absolute:
            return bool(stats.max_abs <= self.absolute[stats.name])
        if self.min_sqnr is not None:
            return bool(stats.sqnr_db >= self.min_sqnr)
        return bool(stats.max_rel <= self.relative)

    def asked(self, name: str) -> str:
        """The limit of an output in words."""
        if name in self.absolute:
            return f"at most {self.absolute[name]:g}"
        if self.min_sqnr is not None:
            return f"at least {self.min_sqnr:g} dB"
        return f"at most {self.relative:g} of the largest value"

    def would_pass(self, stats: OutputStats) -> str | None:
        """The option that would let this output pass; None where nothing does."""
        if stats.name in self.absolute:
            value, option = stats.max_abs, f"--atol {stats.name}:"
        elif self.min_sqnr is not None:
            value, option = stats.sqnr_db, "--min-sqnr "
        else:
            value, option = stats.max_rel, "--tolerance "
        if not math.isfinite(value):
            return None
        return f"{option}{rounded(value, up=self.min_sqnr is None or 'atol' in option):g}"


def parse_tolerances(config: Verify, outputs: Iterable[str]) -> Tolerances:
    """Read --atol name:1e-4, --tolerance and --min-sqnr.

    Raises:
        UsageError: no number, or no such output.

    """
    known = list(outputs)
    absolute = {}
    for text in config.atol:
        name, _, number = text.rpartition(":")
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not name or not limit >= 0:
            raise UsageError(f"--atol {text!r}: expected name:1e-4")
        if name not in known:
            raise UsageError(f"--atol {text!r}: the outputs are {', '.join(known)}")
        absolute[name] = limit
    return Tolerances(config.tolerance, config.min_sqnr, absolute)


@dataclass
class OutputStats:
    """Errors of one output, over the samples that were added."""

    name: str
    nonfinite: str = "same"
    max_abs: float = 0.0
    max_rel: float = 0.0
    worst_feed: int = 0
    fidelity: Fidelity = field(default_factory=Fidelity)
    agreed: int | None = None  # stays None for outputs that are no class scores
    rows: int = 0
    ignored: int = 0
    feeds: int = 0

    def add(self, reference: Array, candidate: Array) -> None:
        """Account for one batch."""
        if reference.dtype.kind not in "OUS":
            reference, candidate = self._policy(reference, candidate)
            self.fidelity.add(reference, candidate)
        found = difference(reference, candidate)
        if self.nonfinite == "forbid" and not _all_finite(reference, candidate):
            found, self.fidelity.poisoned = WORST, True
        self.max_abs = max(self.max_abs, found.max_abs)
        if found.max_rel > self.max_rel:
            self.max_rel, self.worst_feed = found.max_rel, self.feeds
        if is_classifier(reference):
            self.agreed = (self.agreed or 0) + int(
                np.sum(reference.argmax(1) == candidate.argmax(1))
            )
            self.rows += len(reference)
        self.feeds += 1

    def _policy(self, reference: Array, candidate: Array) -> tuple[Array, Array]:
        """With 'ignore' nothing is asked of the candidate where the reference is NaN or Inf."""
        bad = ~np.isfinite(reference.astype(np.float64))
        if self.nonfinite != "ignore" or not bad.any():
            return reference, candidate
        self.ignored += int(bad.sum())
        return np.where(bad, 0, reference), np.where(bad, 0, candidate)

    @property
    def sqnr_db(self) -> float:
        """Over all samples; infinite for strings that are equal."""
        return -math.inf if math.isinf(self.max_rel) else self.fidelity.sqnr_db

    def check(self, engine: str, tolerances: Tolerances) -> OutputCheck:
        """The line of the report."""
        return OutputCheck(
            output=self.name,
            engine=engine,
            max_abs=self.max_abs,
            max_rel=self.max_rel,
            sqnr_db=self.sqnr_db,
            cosine=self.fidelity.cosine,
            passed=tolerances.passes(self),
            mean_abs=self.fidelity.mean_abs_error,
            agreement=None if self.agreed is None else self.agreed / self.rows,
            asked=tolerances.asked(self.name),
            would_pass=tolerances.would_pass(self),
        )


def rounded(value: float, *, up: bool) -> float:
    """Two significant digits, towards the side that passes."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - DIGITS + 1)
    steps = math.ceil(value / unit) if up else math.floor(value / unit)
    return float(f"{steps * unit:.{DIGITS}g}")


def _all_finite(*arrays: Array) -> bool:
    return all(a.dtype.kind in "OUS" or np.isfinite(a.astype(np.float64)).all() for a in arrays)
