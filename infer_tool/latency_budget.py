"""A budget of time: real candidates are pruned and measured until one keeps it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.engines import open_engine
from infer_tool.evaluate import feed_batch
from infer_tool.ledger import stage
from infer_tool.report.model import Gate
from infer_tool.steps import pick_engine
from infer_tool.timing import ratio_of, take_turns
from infer_tool.units import parse_milliseconds, parse_part
from passes.facts import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from infer_tool.compress import Start
    from infer_tool.config import Prune
    from infer_tool.engines import Engine
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

    Array = np.ndarray[Any, Any]
    Candidate = Callable[[float], ir.Model]

STEPS = 6  # of the bisection: the share of the MACs is found to 1/64
SAFETY = 0.97  # candidates aim below the limit by what two measurements differ
WARMUP = 5


@dataclass(frozen=True)
class Limit:
    """At most this share of the source's time, or so many milliseconds."""

    value: float
    relative: bool
    text: str

    def kept_by(self, ratio: float, ms: float, safety: float = 1.0) -> bool:
        """Does a model with this ratio to its source and this median keep it?"""
        return (ratio if self.relative else ms) <= safety * self.value


@dataclass(frozen=True)
class Measured:
    """A candidate's median over that of the source, and both in milliseconds."""

    ratio: float
    ms: float
    source_ms: float


def parse_limit(config: Prune) -> Limit:
    """'60%' of the source's time, or '5ms'.

    Raises:
        UsageError: it is neither, out of range, or nothing is measured.

    """
    text = config.target_latency
    if not config.runs:
        raise UsageError("--target-latency needs measurements; leave out --runs 0")
    if text.strip().endswith("%"):
        return Limit(parse_part(text, "target-latency"), relative=True, text=text)
    if not re.search("[a-z]", text):
        raise UsageError(f"--target-latency {text}: expected a share such as 60%, or a time: 5ms")
    limit = Limit(parse_milliseconds(text, "target-latency"), relative=False, text=text)
    if limit.value <= 0:
        raise UsageError(f"--target-latency {text}: expected more than 0")
    return limit


def find_share(
    begun: Start, ui: Terminal, config: Prune, limit: Limit, candidate: Candidate
) -> float:
    """The largest share of the MACs whose candidate keeps the limit; one line in the ledger.

    Args:
        begun: the source and a sample.
        ui: progress.
        config: engine, threads and runs.
        limit: what to keep.
        candidate: the source pruned to a share of its MACs; UsageError where that cannot be.

    Raises:
        UsageError: the source keeps the limit already, or no candidate does.

    """
    name = pick_engine(config.engine)
    source = open_engine(name, begun.source, threads=config.threads)
    feeds, _ = next(iter(begun.evaluation.batches(feed_batch(source.inputs, 1))))
    low, high, best = 0.0, 1.0, None
    tried: dict[int, Measured] = {}
    with ui.step("search the budget", STEPS) as advance, stage(begun.report, "search") as line:
        for _ in range(STEPS):
            share = (low + high) / 2
            advance(1)
            try:
                model = candidate(share)
            except UsageError:  # cannot become so small
                low = share
                continue
            macs = facts(model).macs
            if macs not in tried:
                engine = open_engine(name, model, threads=config.threads)
                tried[macs] = _measured(source, engine, feeds, config.runs)
            if limit.kept_by(1.0, tried[macs].source_ms):
                raise UsageError(
                    f"--target-latency {limit.text}: the source takes "
                    f"{tried[macs].source_ms:.3g} ms already"
                )
            if limit.kept_by(tried[macs].ratio, tried[macs].ms, SAFETY):
                low, best = share, share
            else:
                high = share
        line.options = {"engine": name, "limit": limit.text, "share": best}
        line.options["candidates"] = [{"macs": m, **asdict(t)} for m, t in tried.items()]
    if best is None:
        raise UsageError(_out_of_reach(limit, tried, facts(begun.source).macs))
    return best


def _measured(source: Engine, engine: Engine, feeds: Mapping[str, Array], runs: int) -> Measured:
    """In turns with the source."""
    base, found = take_turns([lambda: source.run(feeds), lambda: engine.run(feeds)], runs, WARMUP)
    ms, source_ms = (1e3 * float(np.median(t)) for t in (found, base))
    return Measured(ratio_of(found, base).median, ms, source_ms)


def _out_of_reach(limit: Limit, tried: Mapping[int, Measured], whole: int) -> str:
    if not tried:
        return f"--target-latency {limit.text}: the channels of this model cannot be pruned"
    macs, fast = min(tried.items(), key=lambda item: item[1].ratio)
    return (
        f"--target-latency {limit.text}: the fastest candidate, {100 * macs / whole:.0f} % of the "
        f"MACs, takes {fast.ms:.3g} ms, {100 * fast.ratio:.0f} % of the source's time; choose a "
        "larger budget or a smaller --multiple"
    )


def judge(limit: Limit, report: Report) -> None:
    """The result itself, trained: a gate, missed when the lower end of the interval is above."""
    result = report.latency[-1]
    assert result.ratio is not None
    value = result.ratio.low if limit.relative else result.p50_ms
    passed = limit.kept_by(result.ratio.low, result.p50_ms)
    report.gates.append(Gate("target-latency", limit.value, value, passed))
