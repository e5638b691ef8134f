"""Conversions between element types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from infer_runtime.registry import op

if TYPE_CHECKING:
    from infer_runtime.arrays import Array


@op("Cast", since=6)
def Cast(x: Array, *, to: int, saturate: int = 1, round_mode: str = "up") -> Array:
    """Convert to the ONNX type `to`; float8 saturates unless told otherwise."""
    if round_mode != "up":
        raise ValueError(f"round_mode {round_mode!r} has no kernel")
    return convert(x, ir.DataType(to), bool(saturate))


@op("CastLike", since=15)
def CastLike(x: Array, like: Array, *, saturate: int = 1, round_mode: str = "up") -> Array:
    """Cast to the type of the second input."""
    to = ir.DataType.STRING if like.dtype.kind in "OU" else ir.DataType.from_numpy(like.dtype)
    return Cast(x, to=to, saturate=saturate, round_mode=round_mode)


def convert(x: Array, to: ir.DataType, saturate: bool = True) -> Array:
    """`x` in the type `to`: floats to integers drop the fraction, anything but 0 is true."""
    if to == ir.DataType.STRING:
        return _to_text(x)
    if x.dtype.kind in "OU":
        x = _from_text(x, to)
    dtype = np.dtype(to.numpy())
    if dtype == x.dtype:
        return x
    if to == ir.DataType.FLOAT8E8M0:
        raise ValueError("the rounding of FLOAT8E8M0 has no kernel")
    if saturate and to.name.startswith("FLOAT8"):
        return _saturated(x, dtype)
    if dtype.kind == "V" and (x.dtype.kind not in "fiu"):
        # Between two types that NumPy does not know natively there is no direct conversion.
        x = x.astype(np.float32)
    return x.astype(dtype)


def _saturated(x: Array, dtype: np.dtype[Any]) -> Array:
    info: Any = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    limit = float(info.max)
    return np.clip(x.astype(np.float32), -limit, limit).astype(dtype)


def _to_text(x: Array) -> Array:
    if x.dtype.kind == "O":
        return x
    flat = [_text(v) for v in x.reshape(-1)]
    return np.array(flat, object).reshape(x.shape)


def _text(value: Any) -> str:
    if isinstance(value, np.floating) and np.isinf(value):
        return "INF" if value > 0 else "-INF"
    return "NaN" if value != value else str(value)


def _from_text(x: Array, to: ir.DataType) -> Array:
    def parse(value: str | bytes) -> Any:
        text = value.decode() if isinstance(value, bytes) else value
        return int(text) if to.is_integer() else float(text)

    flat = [parse(v) for v in x.reshape(-1)]
    return np.array(flat, np.int64 if to.is_integer() else np.float64).reshape(x.shape)
