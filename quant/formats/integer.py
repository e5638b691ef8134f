"""Integers with a scale and a zero point: real = (q - zero_point) * scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class IntegerFormat:
    """An affine integer format, as QuantizeLinear and DequantizeLinear define it.

    Levels of fewer than 8 bits are held one to a byte; packing is a matter of the file.
    """

    name: str
    dtype: np.dtype[Any]
    low: int
    high: int

    @property
    def bits(self) -> int:
        """Bits of a level."""
        return (self.high - self.low).bit_length()

    @property
    def signed(self) -> bool:
        """Are there levels below zero?"""
        return self.low < 0

    def quantize(self, x: Array, scale: Array, zero_point: Array) -> Array:
        """saturate(round(x / scale) + zero_point), round half to even.

        `scale` (float) and `zero_point` (integer) broadcast against x.
        """
        levels = np.rint(x.astype(np.float64) / scale.astype(np.float64)) + zero_point
        return np.asarray(np.clip(levels, self.low, self.high), self.dtype)

    def dequantize(self, q: Array, scale: Array, zero_point: Array) -> Array:
        """(q - zero_point) * scale in the type of the scale."""
        return np.asarray((q.astype(np.int64) - zero_point).astype(scale.dtype) * scale)


def _integer(bits: int, *, signed: bool) -> IntegerFormat:
    width = max(8, bits)
    dtype = np.dtype(f"{'' if signed else 'u'}int{width}")
    low = -(2 ** (bits - 1)) if signed else 0
    return IntegerFormat(f"{'' if signed else 'u'}int{bits}", dtype, low, low + 2**bits - 1)


INT32, INT16, INT8, INT4, INT3, INT2 = (_integer(b, signed=True) for b in (32, 16, 8, 4, 3, 2))
UINT16, UINT8, UINT4, UINT3, UINT2 = (_integer(b, signed=False) for b in (16, 8, 4, 3, 2))
# int8 for processors that add two products of uint8 and int8 in 16 bits: 2 * 255 * 64 < 2**15.
REDUCED_INT8 = IntegerFormat("int8", np.dtype("int8"), -64, 64)
_SIGNED = {form.bits: form for form in (INT16, INT8, INT4, INT3, INT2)}


@cache
def integer_format(bits: int) -> IntegerFormat:
    """The signed format of 2 to 16 bits; those without a name of their own too."""
    return _SIGNED.get(bits) or _integer(bits, signed=True)
