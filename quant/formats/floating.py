"""Short floats: fp16, bf16, and fp8 behind a scale (Micikevicius et al. 2022, FP8 formats)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FloatFormat:
    """A float of fewer bits; `scaled` formats need a scale to reach the values of weights."""

    name: str
    dtype: np.dtype[Any]
    largest: float
    scaled: bool

    @property
    def bits(self) -> int:
        """Bits of a value."""
        return 8 * self.dtype.itemsize

    def quantize(self, x: Array, scale: Array, _zero_point: Array) -> Array:
        """x / scale, saturated, rounded half to even."""
        ratio = x.astype(np.float64) / scale.astype(np.float64)
        return np.clip(ratio, -self.largest, self.largest).astype(np.float32).astype(self.dtype)

    def dequantize(self, q: Array, scale: Array, _zero_point: Array) -> Array:
        """The value times its scale, in the type of the scale."""
        return np.asarray(q.astype(scale.dtype) * scale)


def _float(name: str, dtype: Any, *, scaled: bool) -> FloatFormat:
    return FloatFormat(name, np.dtype(dtype), _largest(dtype), scaled)


def _largest(dtype: Any) -> float:
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


FP16 = _float("fp16", np.float16, scaled=False)
BF16 = _float("bf16", ml_dtypes.bfloat16, scaled=False)
FP8_E4M3 = _float("fp8-e4m3", ml_dtypes.float8_e4m3fn, scaled=True)
FP8_E5M2 = _float("fp8-e5m2", ml_dtypes.float8_e5m2, scaled=True)
