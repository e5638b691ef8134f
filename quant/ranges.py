"""From a histogram to the range that is worth representing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quant.parameters import Range

if TYPE_CHECKING:
    from collections.abc import Callable

    from quant.histogram import StreamingHistogram

    Array = np.ndarray[Any, Any]

LEVELS = 256
# Candidate ranges: shares of the full range. Below a third, clipping always costs more.
SHARES = np.linspace(1.0, 0.3, 57)


def minmax(histogram: StreamingHistogram, _percentile: float) -> Range:
    """Everything that was seen."""
    return Range(histogram.low, histogram.high)


def percentile(histogram: StreamingHistogram, share: float) -> Range:
    """Cut the rarest (100 - share) percent at each end, half a bin exact."""
    centres, counts = histogram.occupied()
    if not counts.size:
        return minmax(histogram, share)
    running = np.cumsum(counts) / counts.sum()
    low = centres[np.searchsorted(running, 1 - share / 100)]
    high = centres[min(np.searchsorted(running, share / 100), len(centres) - 1)]
    return Range(max(low, histogram.low), min(high, histogram.high))


def mse(histogram: StreamingHistogram, _percentile: float) -> Range:
    """The range with the least mean squared error of rounding and clipping together."""
    return _search(histogram, _squared_error)


def entropy(histogram: StreamingHistogram, _percentile: float) -> Range:
    """The range whose quantised distribution loses the least information.

    Kullback-Leibler divergence between the clipped and the quantised histogram, as in Migacz,
    8-bit inference with TensorRT (2017), with a lower end of its own.
    """
    return _search(histogram, _divergence)


def _search(
    histogram: StreamingHistogram, loss: Callable[[Array, Array, float, float], float]
) -> Range:
    """Best share of the full range, then of each end alone; first come wins ties."""
    full = minmax(histogram, 0)
    centres, counts = histogram.occupied()
    if not counts.size or full.high == full.low:
        return full

    def best(candidates: list[tuple[float, float]]) -> tuple[float, float]:
        losses = [loss(centres, counts, low, high) for low, high in candidates]
        return candidates[int(np.argmin(losses))]

    low, high = best([(full.low * s, full.high * s) for s in SHARES])
    if full.low < 0 < full.high:
        low, high = best([(low, full.high * s) for s in SHARES])
        low, high = best([(full.low * s, high) for s in SHARES])
    return Range(low, high)


def _squared_error(centres: Array, counts: Array, low: float, high: float) -> float:
    step = (high - low) / (LEVELS - 1)
    offset = np.rint(-low / step)
    levels = np.clip(np.rint(centres / step) + offset, 0, LEVELS - 1)
    error = (levels - offset) * step - centres
    return float(np.dot(counts, error * error))


def _divergence(centres: Array, counts: Array, low: float, high: float) -> float:
    inside = (centres >= low) & (centres <= high)
    p = counts[inside].astype(np.float64)
    if not p.size:
        return np.inf
    kept = p.copy()
    p[0] += counts[centres < low].sum()  # what is clipped lands on the ends
    p[-1] += counts[centres > high].sum()
    # Each level shares its count evenly among its bins that are not empty.
    level = np.minimum((np.arange(p.size) * LEVELS) // p.size, LEVELS - 1)
    totals = np.bincount(level, weights=kept, minlength=LEVELS)
    filled = np.bincount(level, weights=kept > 0, minlength=LEVELS)
    q = np.where(kept > 0, (totals / np.maximum(filled, 1))[level], 0.0)
    p, q = p / p.sum(), q / max(q.sum(), 1.0)
    # A clipped count where the quantised distribution has nothing costs as if it were one sample.
    floor = 1.0 / max(counts.sum(), 1)
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], floor))))


METHODS: dict[str, Callable[[StreamingHistogram, float], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
