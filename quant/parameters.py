"""From ranges to scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from quant.formats import INT8, IntegerFormat

if TYPE_CHECKING:
    from quant.granularity import Granularity

    Array = np.ndarray[Any, Any]

WEIGHT_LEVELS = 127  # symmetric: -128 is not used, so that the zero point is exactly 0
# A normal float32 whose product with a usual activation scale is normal too.
SMALLEST_SCALE = 1e-12
BIAS_LEVELS = 2**30  # half of int32, so that the accumulator keeps room for the products


@dataclass(frozen=True)
class Range:
    """The real interval that a quantised activation covers; it always holds zero."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Widen to zero: padding and ReLU must be exact."""
        object.__setattr__(self, "low", min(float(self.low), 0.0))
        object.__setattr__(self, "high", max(float(self.high), 0.0))


@dataclass(frozen=True)
class Parameters:
    """Scale (float32) and zero point of a per-tensor quantised activation."""

    scale: np.float32
    zero_point: int
    format: IntegerFormat

    def real(self, x: Array) -> Array:
        """The number that stands for each x."""
        scale, zero = np.asarray(self.scale), np.asarray(self.zero_point)
        return self.format.dequantize(self.format.quantize(x, scale, zero), scale, zero)


def activation_parameters(span: Range, form: IntegerFormat) -> Parameters:
    """Asymmetric parameters over all levels (Jacob et al. 2018, section 2.1).

    A constant zero gets scale 1: any positive scale represents it.
    """
    width = span.high - span.low
    if width <= 0:
        return Parameters(np.float32(1.0), form.low, form)
    scale = np.float32(max(width / (form.high - form.low), SMALLEST_SCALE))
    zero_point = round(form.low - span.low / float(scale))
    return Parameters(scale, int(np.clip(zero_point, form.low, form.high)), form)


def weight_scale(
    weight: Array,
    granularity: Granularity,
    bias: Array | None,
    input_scale: float,
    chosen: Array | None = None,
) -> Array:
    """Symmetric int8 scales, float32, in the granularity's shape; or those that were `chosen`.

    A channel whose bias would leave int32 at this scale gets a larger one: the bias matters more
    than the resolution of weights that are tiny beside it.
    """
    scale = chosen
    if scale is None:
        largest = granularity.reduce(np.maximum, np.abs(weight.astype(np.float64)))
        scale = np.asarray(largest) / WEIGHT_LEVELS
    if bias is not None:
        needed = np.abs(bias.astype(np.float64)) / (input_scale * BIAS_LEVELS)
        scale = np.maximum(scale, needed if scale.ndim else needed.max(initial=0.0))
    return np.maximum(scale, SMALLEST_SCALE).astype(np.float32)


def quantize_weight(
    weight: Array, scale: Array, granularity: Granularity, form: IntegerFormat = INT8
) -> Array:
    """Levels of a signed format of at most 8 bits, int8; those of int8 in [-127, 127]."""
    zero = np.zeros((), np.int64)
    levels = form.quantize(weight, granularity.spread(scale, weight), zero)
    return np.maximum(levels, np.int8(weight_limits(form)[0]))


def weight_limits(form: IntegerFormat) -> tuple[int, int]:
    """Smallest and largest level in use. Short formats cannot spare one."""
    return (-WEIGHT_LEVELS, WEIGHT_LEVELS) if form is INT8 else (form.low, form.high)
