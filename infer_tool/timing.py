"""Latency of several models in one process, in turns, so that a noisy machine hits all alike."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_tool.report.model import Latency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infer_tool.engines import Engine


@dataclass(frozen=True)
class Contestant:
    """A loaded model and what it is fed."""

    label: str
    engine: Engine
    threads: int
    batch: int
    feeds: Mapping[str, Any]


def measure(
    contestants: Sequence[Contestant],
    runs: int,
    warmup: int,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Latency]:
    """Time every contestant `runs` times after `warmup` untimed runs, one run of each per round."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for round_number in range(warmup + runs):
        for contestant, times in zip(contestants, seconds, strict=True):
            start = time.perf_counter()
            contestant.engine.run(contestant.feeds)
            if round_number >= warmup:
                times.append(time.perf_counter() - start)
        progress(1)
    return [_latency(c, np.array(t)) for c, t in zip(contestants, seconds, strict=True)]


def _latency(contestant: Contestant, seconds: np.ndarray[Any, Any]) -> Latency:
    p50, p90, p99 = (float(p) * 1e3 for p in np.percentile(seconds, [50, 90, 99]))
    return Latency(
        model=contestant.label,
        engine=contestant.engine.name,
        threads=contestant.threads,
        batch=contestant.batch,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        runs=len(seconds),
    )
