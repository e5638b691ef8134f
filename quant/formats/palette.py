"""Codebooks: each weight is the number of an entry in a small table of floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.kmeans import fit_table

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PaletteFormat:
    """A table of at most 2**bits float32 values and a number for each weight."""

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
        """The sorted table of least squared error that `fit_table` finds."""
        return fit_table(x, 2**self.bits)


PALETTES = tuple(PaletteFormat(f"palette{bits}", bits) for bits in range(1, 9))


def fit_tables(x: Array, count: int, axis: int | None) -> Array:
    """The table [count] of a weight, or one for each index of an axis: [channels, count]."""
    if axis is None:
        return fit_table(x, count)
    return np.stack([fit_table(row, count) for row in np.moveaxis(x, axis, 0)])


def nearest(x: Array, table: Array, axis: int | None) -> Array:
    """The numbers (uint8) of the nearest entries, of one table or of those along an axis."""
    form = PALETTES[-1]
    if axis is None:
        return form.quantize(x, table)
    rows = zip(np.moveaxis(x, axis, 0), table, strict=True)
    return np.stack([form.quantize(row, own) for row, own in rows], axis)


def entries(codes: Array, table: Array, axis: int | None) -> Array:
    """The entries that `nearest` numbered."""
    if axis is None:
        return np.asarray(table[codes])
    shape = [1] * codes.ndim
    shape[axis] = -1
    return np.asarray(table[np.arange(len(table)).reshape(shape), codes])
