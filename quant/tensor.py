"""A quantised weight: levels, what turns them into numbers again, and how many scales there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quant.formats import FloatFormat, Format, IntegerFormat, PaletteFormat
from quant.formats.palette import entries
from quant.granularity import Granularity, PerAxis, PerBlock, PerTensor
from quant.parameters import SMALLEST_SCALE

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

PIECE = 1 << 17  # elements that are worked on at a time
# Shares of the largest absolute value that a search for the least squared error tries.
SHARES = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7, 0.65, 0.6)


@dataclass(frozen=True)
class QuantizedTensor:
    """What a file stores of a weight.

    levels: the shape of the weight, one level to an element. scale: float32 in the shape of the
    granularity, for palettes the table, or one for each channel. zero_point: like the scale, or
    None for zero.
    """

    format: Format
    granularity: Granularity
    levels: Array
    scale: Array
    zero_point: Array | None = None

    def real(self) -> Array:
        """The numbers, float32."""
        if isinstance(self.format, PaletteFormat):
            axis = self.granularity.axis if isinstance(self.granularity, PerAxis) else None
            return entries(self.levels, self.scale, axis)
        scale = self.granularity.spread(self.scale, self.levels)
        zero = np.zeros((), np.int64)
        if self.zero_point is not None:
            zero = self.granularity.spread(self.zero_point.astype(np.int64), self.levels)
        return self.format.dequantize(self.levels, scale, zero)


def round_to(
    x: Array, form: Format, granularity: Granularity, scale: Array, zero: Array | None = None
) -> QuantizedTensor:
    """Round to nearest at these scales."""
    assert not isinstance(form, PaletteFormat)
    spread = granularity.spread(scale, x)
    offset = np.zeros((), np.int64)
    if zero is not None:
        offset = granularity.spread(zero.astype(np.int64), x)
    return QuantizedTensor(form, granularity, form.quantize(x, spread, offset), scale, zero)


def quantize_tensor(
    x: Array, form: Format, granularity: Granularity, *, search: bool = False
) -> QuantizedTensor:
    """Quantise a weight without data.

    Signed formats are symmetric, unsigned ones have a zero point; with `search` the scale of each
    group is the one of least squared error among `SHARES` of its range.
    """
    if isinstance(form, PaletteFormat):
        table = form.fit(x)
        return QuantizedTensor(form, PerTensor(), form.quantize(x, table), table)
    if isinstance(form, FloatFormat) and not form.scaled:
        return round_to(x, form, PerTensor(), np.ones((), np.float32))
    axis = _free_axis(x, granularity)
    if axis is None or x.size <= PIECE:
        scale, zero = group_parameters(x, form, granularity, search=search)
        return round_to(x, form, granularity, scale, zero)
    parts = [
        quantize_tensor(part, form, granularity, search=search)
        for part in np.array_split(x, min(x.shape[axis], -(-x.size // PIECE)), axis)
    ]
    along = axis if isinstance(granularity, PerBlock) else 0
    zeros = [part.zero_point for part in parts if part.zero_point is not None]
    return QuantizedTensor(
        form,
        granularity,
        np.concatenate([part.levels for part in parts], axis),
        np.concatenate([part.scale for part in parts], along),
        np.concatenate(zeros, along) if zeros else None,
    )


def _free_axis(x: Array, granularity: Granularity) -> int | None:
    """An axis whose pieces share no scale: they fit into caches, their float64 into memory."""
    if isinstance(granularity, PerAxis) and x.shape[granularity.axis] > 1:
        return granularity.axis % x.ndim
    if isinstance(granularity, PerBlock):
        others = (i for i in range(x.ndim) if i != granularity.axis % x.ndim and x.shape[i] > 1)
        return next(others, None)
    return None


def group_parameters(
    x: Array, form: IntegerFormat | FloatFormat, granularity: Granularity, *, search: bool = False
) -> tuple[Array, Array | None]:
    """Scale and zero point of each group of a weight."""
    x = x.astype(np.float64)
    if isinstance(form, IntegerFormat) and not form.signed:
        low = np.minimum(granularity.reduce(np.minimum, x), 0.0)
        high = np.maximum(granularity.reduce(np.maximum, x), 0.0)
    else:
        high = np.asarray(granularity.reduce(np.maximum, np.abs(x)))
        low = -high
    best_scale, best_zero = _affine(low, high, form)
    if not search:
        return best_scale, best_zero
    best = _loss(x, form, granularity, best_scale, best_zero)
    for share in SHARES[1:]:
        scale, zero = _affine(low * share, high * share, form)
        loss = _loss(x, form, granularity, scale, zero)
        better = loss < best
        best = np.where(better, loss, best)
        best_scale = np.where(better, scale, best_scale)
        if zero is not None and best_zero is not None:
            best_zero = np.where(better, zero, best_zero)
    return best_scale, best_zero


def _affine(
    low: Array, high: Array, form: IntegerFormat | FloatFormat
) -> tuple[Array, Array | None]:
    """Symmetric formats keep the zero point at 0 and leave their lowest level unused."""
    if isinstance(form, FloatFormat):
        return _scale(high / form.largest), None
    if form.signed:
        return _scale(high / form.high), None
    scale = _scale((high - low) / form.high)
    zero = np.clip(np.rint(-low / scale), form.low, form.high)
    return scale, np.asarray(zero.astype(form.dtype))


def _scale(scale: Array) -> Array:
    return np.asarray(np.maximum(scale, SMALLEST_SCALE), np.float32)


def _loss(
    x: Array,
    form: IntegerFormat | FloatFormat,
    granularity: Granularity,
    scale: Array,
    zero: Array | None,
) -> Array:
    """Squared error of each group."""
    error = round_to(x, form, granularity, scale, zero).real() - x
    return np.asarray(granularity.reduce(np.add, error * error))
