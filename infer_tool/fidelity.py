"""How alike two streams of arrays are; sums only, so that memory does not grow with samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Fidelity:
    """Sums over all elements that were added."""

    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    power: float = 0.0  # of the candidate
    total_error: float = 0.0
    count: int = 0
    max_abs: float = 0.0
    poisoned: bool = False  # NaN or Inf on one side only

    def add(self, reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]) -> None:
        """Account for two arrays of one shape; they are compared in float64."""
        r, c = reference.astype(np.float64), candidate.astype(np.float64)
        if not np.array_equal(np.isfinite(r), np.isfinite(c)):
            self.poisoned = True
            return
        finite = np.isfinite(r)
        r, c = r[finite], c[finite]
        error = c - r
        self.signal += float(np.dot(r, r))
        self.noise += float(np.dot(error, error))
        self.dot += float(np.dot(r, c))
        self.power += float(np.dot(c, c))
        self.total_error += float(np.abs(error).sum())
        self.count += r.size
        self.max_abs = max(self.max_abs, float(np.abs(error).max(initial=0.0)))

    @property
    def max_abs_error(self) -> float:
        """The largest error; infinite where only one side is NaN or Inf."""
        return math.inf if self.poisoned else self.max_abs

    @property
    def mean_abs_error(self) -> float:
        """The mean of the errors' magnitudes."""
        if self.poisoned:
            return math.inf
        return self.total_error / self.count if self.count else 0.0

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise, 10 log10(P_s / P_n)."""
        if self.poisoned:
            return -math.inf
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two."""
        if self.poisoned:
            return -1.0
        power = math.sqrt(self.signal * self.power)
        if power:
            return self.dot / power
        return 1.0 if self.noise == 0 else 0.0
