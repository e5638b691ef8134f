"""Limits on a result. A missed one raises, so that nothing is written and the status is 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_runtime.errors import GateError, UsageError
from infer_tool.config import DropGate, Gates
from infer_tool.report.model import Gate
from infer_tool.units import parse_bytes, parse_milliseconds, parse_share

if TYPE_CHECKING:
    from infer_tool.config import SizeGate
    from infer_tool.report.model import Accuracy, Report

ROUNDING = 1e-9  # a drop of 2 of 400 samples against --max-drop 0.5% is equal, not larger


@dataclass(frozen=True)
class Limits:
    """The parsed gates; None is no limit. Parsed before any work, so that a typo costs nothing."""

    max_drop: float | None
    max_size: int | None
    min_coverage: float | None
    min_sqnr: float | None = None
    max_latency: float | None = None  # milliseconds


def parse_limits(config: SizeGate) -> Limits:
    """Read the gate options of a command; UsageError for what is no quantity."""
    size = None if config.max_size is None else parse_bytes(config.max_size, "max-size")
    if size is not None and size <= 0:
        raise UsageError(f"--max-size {config.max_size}: expected more than 0")
    drop = share = sqnr = latency = None
    if isinstance(config, DropGate):
        sqnr = config.min_sqnr
        if sqnr is not None and not math.isfinite(sqnr):
            raise UsageError(f"--min-sqnr {sqnr}: expected a finite number of dB")
        if config.max_drop is not None:
            drop = parse_share(config.max_drop, "max-drop")
        if config.max_latency is not None:
            latency = parse_milliseconds(config.max_latency, "max-latency")
    if isinstance(config, Gates) and config.min_coverage is not None:
        share = parse_share(config.min_coverage, "min-coverage")
        if not 0 <= share <= 1:
            raise UsageError(f"--min-coverage {config.min_coverage}: expected 0% to 100%")
    return Limits(drop, size, share, sqnr, latency)


def apply_gates(report: Report, limits: Limits) -> None:
    """Judge the report; GateError naming every missed limit, with the report as evidence."""
    if limits.max_drop is not None:
        _judge(report, "max-drop", limits.max_drop, drop_of(report.accuracy), most=True)
    if limits.min_sqnr is not None:
        found = report.accuracy.sqnr_db if report.accuracy else math.nan
        _judge(report, "min-sqnr", limits.min_sqnr, found, most=False)
    if limits.max_latency is not None:
        ms = report.latency[-1].p50_ms if report.latency else math.nan
        _judge(report, "max-latency", limits.max_latency, ms, most=True)
    if limits.max_size is not None:
        size = report.artifact.bytes if report.artifact else math.nan
        _judge(report, "max-size", float(limits.max_size), size, most=True)
    if limits.min_coverage is not None:
        share = report.coverage.macs_fraction if report.coverage else math.nan
        _judge(report, "min-coverage", limits.min_coverage, share, most=False)
    raise_missed(report)


def raise_missed(report: Report) -> None:
    """GateError when any gate of the report was missed."""
    missed = [g for g in report.gates if not g.passed]
    if missed:
        report.passed = False
        text = "; ".join(f"{g.name} is {g.value:.6g}, limit {g.limit:.6g}" for g in missed)
        error = GateError(f"gate failed: {text}; no file was written")
        error.evidence = report
        raise error


def drop_of(accuracy: Accuracy | None) -> float:
    """The loss of the metric.

    Raises:
        UsageError: it was not measured, or the metric has none.

    """
    if accuracy is None:
        raise UsageError("--max-drop needs accuracy; this command measured none")
    if accuracy.drop is None:
        raise UsageError(
            f"--max-drop: the metric {accuracy.metric} has no drop; "
            "use --metric cosine, agreement or top1"
        )
    return accuracy.drop


def _judge(report: Report, name: str, limit: float, value: float, *, most: bool) -> None:
    """NaN never passes: a value that could not be measured is not within its limit."""
    passed = value <= limit + ROUNDING if most else value >= limit - ROUNDING
    report.gates.append(Gate(name, limit, float(value), bool(passed)))
