"""Latency of several models in one process, in turns, so that a noisy machine hits all alike."""

from __future__ import annotations

import gc
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_tool.report.model import Latency, Ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from infer_tool.engines import Engine

CONFIDENCE = 0.99
QUANTILES = 41  # of the distribution that the report keeps, 0 % to 100 %
_LIMIT = (1 - CONFIDENCE) / 2


@dataclass(frozen=True)
class Contestant:
    """A loaded model and what it is fed."""

    label: str
    engine: Engine
    threads: int
    batch: int
    feeds: Mapping[str, Any]
    load_ms: float | None = None


def measure(
    contestants: Sequence[Contestant],
    runs: int,
    warmup: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Latency]:
    """Time every contestant `runs` times after `warmup` untimed runs, one run of each per round.

    Each is compared with the first by `ratio_of`.
    """
    calls = [partial(c.engine.run, c.feeds) for c in contestants]
    return latencies(contestants, take_turns(calls, runs, warmup, progress))


def latencies(
    contestants: Sequence[Contestant], seconds: Sequence[np.ndarray[Any, Any]]
) -> list[Latency]:
    """A row for each contestant, with its ratio to the first one."""
    return [
        _latency(c, t, None if number == 0 else ratio_of(t, seconds[0]))
        for number, (c, t) in enumerate(zip(contestants, seconds, strict=True))
    ]


def take_turns(
    calls: Sequence[Callable[[], Any]],
    runs: int,
    warmup: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[np.ndarray[Any, Any]]:
    """Seconds of each call in each round.

    The order is turned around in every second round: what runs after another one finds its caches.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    with _no_collection():
        for number in range(warmup + runs):
            order = range(len(calls)) if number % 2 == 0 else reversed(range(len(calls)))
            for place in order:
                start = time.perf_counter()
                calls[place]()
                if number >= warmup:
                    seconds[place].append(time.perf_counter() - start)
            progress(1)
    return [np.array(t) for t in seconds]


def ratio_of(seconds: np.ndarray[Any, Any], base: np.ndarray[Any, Any]) -> Ratio:
    """Median of the ratios within the rounds, with an interval that makes no assumption.

    A slow phase of the machine hits both sides of a round and cancels; an interruption of one run
    is one of many ratios. The interval is of order statistics (the sign test turned around): it
    holds the median with the confidence `CONFIDENCE` whatever the distribution is.
    """
    ratios = np.sort(seconds / base)
    rank = interval_rank(len(ratios))
    median = float(np.median(ratios))
    if rank is None:  # too few runs for any statement
        return Ratio(median, 0.0, math.inf, CONFIDENCE)
    return Ratio(median, float(ratios[rank]), float(ratios[-1 - rank]), CONFIDENCE)


def interval_rank(count: int) -> int | None:
    """The largest k with P(Binomial(count, 1/2) <= k) <= (1 - confidence) / 2; None: there is none.

    Between the order statistics k and count - 1 - k (from 0) lies the median.
    """
    total, rank = 0.0, None
    for k in range(count):
        total += math.exp(
            math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
            - count * math.log(2)
        )  # fmt: skip
        if total > _LIMIT:
            return rank
        rank = k
    return rank


@contextmanager
def _no_collection() -> Iterator[None]:
    """A collection of garbage in the middle of a run is nobody's latency."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _latency(contestant: Contestant, seconds: np.ndarray[Any, Any], ratio: Ratio | None) -> Latency:
    ms = seconds * 1e3
    p50, p90, p95, p99 = (float(p) for p in np.percentile(ms, [50, 90, 95, 99]))
    return Latency(
        model=contestant.label,
        engine=contestant.engine.name,
        threads=contestant.threads,
        batch=contestant.batch,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        runs=len(ms),
        p95_ms=p95,
        max_ms=float(ms.max()),
        throughput=1e3 * max(contestant.batch, 1) / p50,
        load_ms=contestant.load_ms,
        ratio=ratio,
        quantiles_ms=[float(q) for q in np.quantile(ms, np.linspace(0, 1, QUANTILES))],
    )
