"""Codebooks: each weight is the number of an entry in a small table of floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDS = 30  # Lloyd's iterations; the error changes by less than a thousandth after them
HISTOGRAM = 1 << 16  # larger weights are clustered by their histogram, at 1/65536 of the range


@dataclass(frozen=True)
class PaletteFormat:
    """A table of 2**bits float32 values and a number for each weight."""

    name: str
    bits: int

    def quantize(self, x: Array, table: Array) -> Array:
        """The number (uint8) of the nearest entry of the sorted table; ties go down."""
        middles = (table[1:].astype(np.float64) + table[:-1]) / 2
        codes = np.searchsorted(middles, x.reshape(-1)).astype(np.uint8)
        return np.asarray(codes.reshape(x.shape))

    def dequantize(self, q: Array, table: Array) -> Array:
        """The entries."""
        return np.asarray(table[q])

    def fit(self, x: Array) -> Array:
        """The sorted table of least squared error that Lloyd's algorithm finds (1982).

        It starts at equal shares of the sorted values; the same weights give the same table.
        """
        values, counts = _histogram(x.reshape(-1).astype(np.float64))
        share = np.cumsum(counts) - counts / 2
        starts = (np.arange(2**self.bits) + 0.5) / 2**self.bits * counts.sum()
        table = np.interp(starts, share, values)
        for _ in range(ROUNDS):
            owner = np.searchsorted((table[1:] + table[:-1]) / 2, values)
            weight = np.bincount(owner, counts, table.size)
            total = np.bincount(owner, counts * values, table.size)
            table = np.sort(np.where(weight > 0, total / np.maximum(weight, 1e-300), table))
        return np.asarray(table, np.float32)


def _histogram(x: Array) -> tuple[Array, Array]:
    """Distinct values and how often they occur, of large arrays on a grid."""
    if x.size > HISTOGRAM:
        low, high = x.min(), x.max()
        step = (high - low) / (HISTOGRAM - 1) or 1.0
        counts = np.bincount(np.rint((x - low) / step).astype(np.int64), minlength=HISTOGRAM)
        used = np.flatnonzero(counts)
        return low + used * step, counts[used].astype(np.float64)
    values, counts = np.unique(x, return_counts=True)
    return values, counts.astype(np.float64)


PALETTES = tuple(PaletteFormat(f"palette{bits}", bits) for bits in range(1, 9))
