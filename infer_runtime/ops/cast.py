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
    if to == ir.DataType.FLOAT8E8M0:
        return _power_of_two(x.astype(np.float32), bool(saturate), round_mode)
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
        return _power_of_two(x.astype(np.float32), saturate, "up")
    if saturate and to.name.startswith("FLOAT8"):
        return _saturated(x, dtype)
    if dtype.kind == "V" and (x.dtype.kind not in "fiu"):
        # Between two types that NumPy does not know natively there is no direct conversion.
        x = x.astype(np.float32)
    return x.astype(dtype)


def _power_of_two(x: Array, saturate: bool, round_mode: str) -> Array:
    """FLOAT8E8M0: an exponent alone, 2**-127 to 2**127; code 255 is not a number.

    OCP Microscaling Formats (MX) 1.0, 5.4.1.
    """
    mantissa, exponent = np.frexp(np.abs(x))  # the mantissa is at least 1/2
    up = {"up": mantissa > 0.5, "down": np.zeros(x.shape, bool), "nearest": mantissa >= 0.75}
    if round_mode not in up:
        raise ValueError(f"unknown round_mode {round_mode!r}")
    code = exponent.astype(np.int64) - 1 + up[round_mode] + 127
    code = np.where(x == 0, 0 if saturate else 255, code)
    code = np.where(np.isinf(x), 999, code)
    outside = (code < 0) | (code > 254)
    code = np.clip(code, 0, 254) if saturate else np.where(outside, 255, code)
    code = np.where(np.isnan(x), 255, code)
    return code.astype(np.uint8).view(ir.DataType.FLOAT8E8M0.numpy())


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
