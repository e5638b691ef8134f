"""Quantised numbers: q = saturate(round(x / scale) + zero point), and integer products.

ONNX QuantizeLinear: halves round to the even neighbour; scales are per tensor, per axis or per
block of an axis. Integer products are computed in float64, where sums up to 2^53 are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from infer_runtime.arrays import Array, as_type, beside_axis, number, positive_axes, widened
from infer_runtime.ops.cast import convert
from infer_runtime.ops.convolve import convolve
from infer_runtime.ops.window import window
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence


def aligned(parameter: Array, x: Array, axis: int, block_size: int = 0) -> Array:
    """A scale or zero point shaped to broadcast against `x`.

    Scalars (and vectors of one) are per tensor, [x.shape[axis]] is per axis, and with a block
    size the parameter has the rank of x and ceil(x.shape[axis] / block_size) entries on the axis.

    Raises:
        ValueError: the parameter does not fit.

    """
    if parameter.size == 1:
        return parameter.reshape(())
    (axis,) = positive_axes([axis], x.ndim)
    if not block_size:
        if parameter.shape != (x.shape[axis],):
            raise ValueError(
                f"a scale of shape {list(parameter.shape)} does not fit axis {axis} of "
                f"{list(x.shape)}"
            )
        return beside_axis(parameter, axis, x.ndim)
    repeated = np.repeat(parameter, block_size, axis=axis)
    return repeated[(slice(None),) * axis + (slice(x.shape[axis]),)]


def limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Smallest and largest value of an integer type, also of the sub-byte ones."""
    info: Any = ml_dtypes.iinfo(dtype)  # type: ignore[no-untyped-call]
    return int(info.min), int(info.max)


@op("QuantizeLinear", since=10)
def QuantizeLinear(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Array:
    """Round x / scale + zero point into the type of the zero point (default uint8)."""
    if y_zero_point is not None:
        to = ir.DataType.from_numpy(y_zero_point.dtype)
    else:
        to = ir.DataType(output_dtype) if output_dtype else ir.DataType.UINT8
    wide = np.dtype(ir.DataType(precision).numpy()) if precision else _division_type(x, y_scale)
    y = as_type(x, wide) / as_type(aligned(y_scale, x, axis, block_size), wide)
    if not to.is_integer():
        return convert(y, to, bool(saturate))
    y = np.rint(y)
    if y_zero_point is not None and np.any(y_zero_point):
        y = y + as_type(aligned(y_zero_point, x, axis, block_size), y.dtype)
    return saturated(y, np.dtype(to.numpy()))


def _division_type(x: Array, scale: Array) -> np.dtype[Any]:
    wide = np.float64 if x.dtype.kind in "iu" else widened(scale).dtype
    return np.dtype(wide)


def saturated(x: Array, dtype: np.dtype[Any]) -> Array:
    """Whole numbers clipped to the range of an integer type."""
    low, high = limits(dtype)
    clipped: Array = np.minimum(np.maximum(x, number(low, x)), number(high, x))
    if dtype.kind == "V":
        return clipped.astype(np.int8).astype(dtype)
    return clipped.astype(dtype)


@op("DequantizeLinear", since=10)
def DequantizeLinear(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Array:
    """(x - zero point) * scale, in the type of the scale or `output_dtype`."""
    to = np.dtype(ir.DataType(output_dtype).numpy()) if output_dtype else x_scale.dtype
    scale = widened(aligned(x_scale, x, axis, block_size))
    values = x
    if x_zero_point is not None and np.any(x_zero_point.astype(np.float32)):
        zero = aligned(x_zero_point, x, axis, block_size)
        # int32 differences do not fit into float32; narrower ones do, exactly.
        wide = np.int64 if x.dtype == np.int32 else np.float32
        values = x.astype(wide) - zero.astype(wide)
    return as_type(values.astype(scale.dtype) * scale, to)


@op("DynamicQuantizeLinear", since=11)
def DynamicQuantizeLinear(x: Array) -> tuple[Array, Array, Array]:
    """uint8 by the range of the data, which always holds 0."""
    low = np.minimum(x.min(initial=0), 0).astype(np.float32)
    high = np.maximum(x.max(initial=0), 0).astype(np.float32)
    scale = np.asarray((high - low) / np.float32(255), np.float32)
    if scale == 0:
        return np.zeros(x.shape, np.uint8), np.float32(1) * np.ones((), np.float32), _byte(0)
    zero = _byte(np.rint(np.clip(-low / scale, 0, 255)))
    return QuantizeLinear(x, scale, zero), scale, zero


def _byte(value: Any) -> Array:
    return np.asarray(value).astype(np.uint8)


def _shifted(x: Array, zero: Array | None, axis: int) -> Array:
    """x - zero point in float64; a vector of zero points lies along `axis`."""
    wide = x.astype(np.float64)
    if zero is None or zero.size == 1:
        return wide if zero is None else wide - zero.astype(np.float64).reshape(())
    return wide - (zero if zero.ndim > 1 else beside_axis(zero, axis, x.ndim)).astype(np.float64)


@op("MatMulInteger", since=10)
def MatMulInteger(
    A: Array, B: Array, a_zero_point: Array | None = None, b_zero_point: Array | None = None
) -> Array:
    """Exact product in int32; zero points per tensor, per row of A, per column of B."""
    a = _shifted(A, a_zero_point, max(A.ndim - 2, 0))
    b = _shifted(B, b_zero_point, B.ndim - 1)
    y: Array = np.matmul(a, b).astype(np.int32)
    return y


@op("ConvInteger", since=10)
def ConvInteger(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Exact convolution in int32; padding is the zero point."""
    del kernel_shape
    where = window(
        x.shape[2:], w.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    y = convolve(_shifted(x, x_zero_point, 1), _shifted(w, w_zero_point, 0), where, group)
    return y.astype(np.int32)


def requantized(total: Array, scale: Array, zero: Array) -> Array:
    """An exact integer sum at another scale, rounded and saturated to the type of `zero`."""
    return saturated(np.rint(total * scale) + zero.astype(total.dtype), zero.dtype)


@op("QLinearConv", since=10)
def QLinearConv(
    x: Array, x_scale: Array, x_zero_point: Array,
    w: Array, w_scale: Array, w_zero_point: Array,
    y_scale: Array, y_zero_point: Array, B: Array | None = None,
    **geometry: Any,
) -> Array:  # fmt: skip
    """Integer convolution, int32 bias of scale x_scale * w_scale, requantised."""
    total = ConvInteger(x, w, x_zero_point, w_zero_point, **geometry).astype(np.float64)
    if B is not None:
        total += beside_axis(B, 1, total.ndim)
    scale = x_scale.astype(np.float64) * w_scale / y_scale
    return requantized(total, aligned(scale, total, 1), y_zero_point)


@op("QLinearMatMul", since=10)
def QLinearMatMul(
    a: Array, a_scale: Array, a_zero_point: Array,
    b: Array, b_scale: Array, b_zero_point: Array,
    y_scale: Array, y_zero_point: Array,
) -> Array:  # fmt: skip
    """Integer product, requantised to the scale of the output."""
    total = MatMulInteger(a, b, a_zero_point, b_zero_point).astype(np.float64)
    return requantized(total, product_scale(a_scale, b_scale, total) / y_scale, y_zero_point)


def product_scale(a_scale: Array, b_scale: Array, total: Array) -> Array:
    """The scale of a product: per row of the first matrix, per column of the second."""
    return _beside(a_scale, total, -2) * _beside(b_scale, total, -1)


def _beside(scale: Array, total: Array, axis: int) -> Array:
    if scale.ndim != 1 or scale.size == 1:
        return scale.astype(np.float64)
    return beside_axis(scale.astype(np.float64), axis % total.ndim, total.ndim)
