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


def moving_average(histogram: StreamingHistogram, share: float) -> Range:
    """The minima and maxima of the batches, averaged; late batches count more."""
    return Range(*histogram.average) if histogram.average else minmax(histogram, share)


def percentile(histogram: StreamingHistogram, share: float) -> Range:
    """Cut the rarest (100 - share) percent at each end, half a bin exact."""
    centres, counts = histogram.occupied()
    if not counts.size:
        return minmax(histogram, share)
    running = np.cumsum(counts) / counts.sum()
    low = centres[np.searchsorted(running, 1 - share / 100)]
    high = centres[min(int(np.searchsorted(running, share / 100)), len(centres) - 1)]
    return Range(max(low, histogram.low), min(high, histogram.high))


def mse(histogram: StreamingHistogram, _percentile: float) -> Range:
    """The range with the least mean squared error of rounding and clipping together."""
    return _search(histogram, _squared_error)


def entropy(histogram: StreamingHistogram, _percentile: float) -> Range:
    """The range whose quantised distribution loses the least information.

    Kullback-Leibler divergence between the clipped and the quantised histogram as in Migacz,
    8-bit inference with TensorRT (2017), with a lower end of its own. Values that a range holds
    exactly, zero and the ends of the data, carry spikes behind ReLU and ReLU6; they lose nothing
    by rounding and are left out unless they are clipped.
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


def _levels(centres: Array, low: float, high: float) -> tuple[Array, float, float]:
    """Level of each bin, step between levels, level of zero."""
    step = (high - low) / (LEVELS - 1)
    offset = float(np.rint(-low / step))
    return np.clip(np.rint(centres / step) + offset, 0, LEVELS - 1), step, offset


def _squared_error(centres: Array, counts: Array, low: float, high: float) -> float:
    levels, step, offset = _levels(centres, low, high)
    error = (levels - offset) * step - centres
    return float(np.dot(counts, error * error))


def _divergence(centres: Array, counts: Array, low: float, high: float) -> float:
    half = (centres[1] - centres[0]) / 2 if len(centres) > 1 else 0.0
    inside = (centres >= low - half) & (centres <= high + half)
    kept = counts.astype(np.float64)
    total = kept.sum()
    clipped = kept[centres < low - half].sum(), kept[centres > high + half].sum()
    # Bins 0 and -1 are the ends of the data.
    for exact in (0, -1, int(np.argmin(np.abs(centres)))):
        if inside[exact]:
            kept[exact] = 0
    kept = kept[inside]
    if not kept.size:
        return np.inf
    p = kept.copy()
    p[0] += clipped[0]  # what is clipped lands on the ends
    p[-1] += clipped[1]
    level = np.minimum((np.arange(p.size) * LEVELS) // p.size, LEVELS - 1)
    totals = np.bincount(level, weights=kept, minlength=LEVELS)
    filled = np.bincount(level, weights=kept > 0, minlength=LEVELS)
    q = np.where(kept > 0, (totals / np.maximum(filled, 1))[level], 0.0)
    used = p > 0
    # Where the quantised distribution has nothing, a clipped count costs as against one sample.
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 1.0))) / total)


METHODS: dict[str, Callable[[StreamingHistogram, float], Range]] = {
    "minmax": minmax,
    "moving-average": moving_average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
