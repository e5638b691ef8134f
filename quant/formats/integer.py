"""Integers with a scale and a zero point: real = (q - zero_point) * scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class IntegerFormat:
    """An affine integer format, as QuantizeLinear and DequantizeLinear define it."""

    name: str
    dtype: np.dtype[Any]
    low: int
    high: int

    def quantize(self, x: Array, scale: Array, zero_point: Array) -> Array:
        """saturate(round(x / scale) + zero_point), round half to even.

        `scale` (float) and `zero_point` (integer) broadcast against x.
        """
        levels = np.rint(x.astype(np.float64) / scale.astype(np.float64)) + zero_point
        return np.asarray(np.clip(levels, self.low, self.high), self.dtype)

    def dequantize(self, q: Array, scale: Array, zero_point: Array) -> Array:
        """(q - zero_point) * scale in the type of the scale."""
        return np.asarray((q.astype(np.int64) - zero_point).astype(scale.dtype) * scale)


UINT8 = IntegerFormat("uint8", np.dtype(np.uint8), 0, 255)
INT8 = IntegerFormat("int8", np.dtype(np.int8), -128, 127)
INT32 = IntegerFormat("int32", np.dtype(np.int32), -(2**31), 2**31 - 1)
