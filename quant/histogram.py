"""A histogram of a stream: fixed memory, a range that doubles when values leave it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Below this the scale of a bin leaves float32; such values are zero to any format.
SMALLEST_LIMIT = 2.0**-64
INERTIA = 0.9  # of moving averages
BINS = 8192  # over [-limit, limit]; at least a quarter of them lie under the data's largest side


class StreamingHistogram:
    """Counts over [-limit, limit], limit a power of two; also the exact minimum and maximum.

    `average` is the moving average of the minima and of the maxima of what was added.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.average: tuple[float, float] | None = None
        self.limit = 0.0
        self.counts = np.zeros(BINS, np.int64)
        self.zeros = 0  # before the first value that is not zero there is no scale to choose

    def add(self, x: Array) -> None:
        """Account for all elements; ValueError when one is NaN or infinite."""
        if x.size == 0:
            return
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("NaN or infinity")
        self.low, self.high = min(self.low, low), max(self.high, high)
        before = self.average or (low, high)
        self.average = (_moved(before[0], low), _moved(before[1], high))
        largest = max(-low, high)
        if largest > self.limit:
            self._grow(largest)
        if self.limit == 0:
            self.zeros += x.size
            return
        # Multiply and shift in the data's own type: a copy in float64 would double the cost.
        scaled = x.reshape(-1) * x.dtype.type(BINS / (2 * self.limit))
        scaled += x.dtype.type(BINS / 2)
        index = np.minimum(scaled.astype(np.int32), BINS - 1)
        self.counts += np.bincount(index, minlength=BINS)

    def _grow(self, largest: float) -> None:
        wanted = max(2.0 ** math.ceil(math.log2(largest)), SMALLEST_LIMIT)
        wanted = wanted if wanted >= largest else 2 * wanted
        if self.limit == 0:
            self.limit = wanted
            self.counts[BINS // 2] += self.zeros
            return
        while self.limit < wanted:
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = half
            self.limit *= 2

    def occupied(self) -> tuple[Array, Array]:
        """Centres and counts of the bins between the minimum and the maximum."""
        width = 2 * self.limit / BINS
        centres = (np.arange(BINS) + 0.5) * width - self.limit
        used = np.flatnonzero(self.counts)
        part = slice(used[0], used[-1] + 1) if used.size else slice(0, 0)
        return centres[part], self.counts[part]


def _moved(average: float, new: float) -> float:
    return INERTIA * average + (1 - INERTIA) * new
