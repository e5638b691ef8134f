"""Pooling: windows are taken tap by tap, so that NumPy works on whole planes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import Array, as_type, namespace, widened
from infer_runtime.ops.window import Window, pad_spatial, window
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence


@op("MaxPool")
def MaxPool(
    X: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    n_outputs: int = 1,
) -> Array | tuple[Array, Array]:
    """Maximum of each window; the second output is its flat position in X."""
    where = window(
        X.shape[2:], kernel_shape, strides=strides, dilations=dilations, pads=pads,
        auto_pad=auto_pad, ceil_mode=ceil_mode,
    )  # fmt: skip
    padded = where.pad(X, lowest(X.dtype))
    if n_outputs > 1:
        return _max_with_positions(X, padded, where, storage_order)
    taps = where.taps(padded)
    y = next(taps).copy()
    for tap in taps:
        np.maximum(y, tap, out=y)
    return y


def lowest(dtype: np.dtype[Any]) -> Any:
    """The value that no maximum takes: -inf, or the smallest integer."""
    return np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else -math.inf


def _max_with_positions(
    X: Array, padded: Array, where: Window, storage_order: int
) -> tuple[Array, Array]:
    planes = np.arange(math.prod(X.shape[:2]), dtype=np.int64) * math.prod(X.shape[2:])
    flat = _positions(X.shape[2:], bool(storage_order))
    places = pad_spatial(flat, where.begins, where.ends, -1)
    y = np.full((*X.shape[:2], *where.out), lowest(X.dtype), X.dtype)
    at = np.full(y.shape, -1, np.int64)
    for tap, place in zip(where.taps(padded), where.taps(places), strict=True):
        better = ((tap > y) | (at < 0)) & (place >= 0)
        y = np.where(better, tap, y)
        at = np.where(better, place, at)
    return y, at + planes.reshape(*X.shape[:2], *[1] * len(where.out))


def _positions(size: Sequence[int], column_major: bool) -> Array:
    order = "F" if column_major else "C"
    return np.arange(math.prod(size), dtype=np.int64).reshape(size, order=order)  # type: ignore[call-overload,no-any-return]


@op("AveragePool")
def AveragePool(
    X: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Mean of each window, over the real inputs or (count_include_pad) the padding too."""
    where = window(
        X.shape[2:], kernel_shape, strides=strides, dilations=dilations, pads=pads,
        auto_pad=auto_pad, ceil_mode=ceil_mode,
    )  # fmt: skip
    x = widened(X)
    total = _sum(where.taps(where.pad(x)))
    count = counts(X.shape[2:], where, pads, auto_pad, bool(count_include_pad))
    return as_type(total / count.astype(total.dtype), X.dtype)


def counts(
    size: Sequence[int], where: Window, pads: Sequence[int] | None, auto_pad: str, with_pads: bool
) -> Array:
    """How many elements each window of AveragePool is the mean of."""
    counted = np.ones(size, np.float32)
    begins, ends = where.begins, where.ends
    if with_pads:
        # What ceil_mode adds beyond the padding of the node is never counted.
        rank = len(where.out)
        own = tuple(pads or ends) if auto_pad == "NOTSET" else ends
        own = own[-rank:] if pads else (0,) * rank if auto_pad == "NOTSET" else own
        counted = pad_spatial(counted, begins, own, 1)
        begins, ends = (0,) * rank, tuple(e - o for e, o in zip(ends, own, strict=True))
    return _sum(where.taps(pad_spatial(counted, begins, ends)))


def _sum(taps: Any) -> Array:
    total = next(taps).copy()
    for tap in taps:
        total += tap
    return total


@op("LpPool", since=2)
def LpPool(
    X: Array,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    p: int = 2,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The p-norm of each window."""
    where = window(
        X.shape[2:], kernel_shape, strides=strides, dilations=dilations, pads=pads,
        auto_pad=auto_pad, ceil_mode=ceil_mode,
    )  # fmt: skip
    powers = np.abs(widened(X)) ** p
    return as_type(_sum(where.taps(where.pad(powers))) ** (1 / p), X.dtype)


def _spatial(X: Array) -> tuple[int, ...]:
    return tuple(range(2, X.ndim))


@op("GlobalAveragePool", library="any")
def GlobalAveragePool(X: Array) -> Array:
    """Mean of each channel."""
    x = widened(X)
    return as_type(namespace(x).mean(x, axis=_spatial(X), keepdims=True), X.dtype)


@op("GlobalMaxPool", library="any")
def GlobalMaxPool(X: Array) -> Array:
    """Maximum of each channel."""
    return as_type(namespace(X).max(X, axis=_spatial(X), keepdims=True), X.dtype)


@op("GlobalLpPool", since=2, library="any")
def GlobalLpPool(X: Array, *, p: int = 2) -> Array:
    """The p-norm of each channel."""
    xp = namespace(X)
    powers = xp.abs(widened(X)) ** p
    return as_type(xp.sum(powers, axis=_spatial(X), keepdims=True) ** (1 / p), X.dtype)


@op("MaxUnpool", since=9)
def MaxUnpool(
    X: Array,
    indices: Array,
    output_shape: Array | None = None,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Put each value back where MaxPool found it; the rest is zero."""
    rank = X.ndim - 2
    strides = tuple(strides or [1] * rank)
    pads = tuple(pads or [0] * (2 * rank))
    natural = tuple(
        (X.shape[i + 2] - 1) * strides[i] + kernel_shape[i] - pads[i] - pads[i + rank]
        for i in range(rank)
    )
    shape = (*X.shape[:2], *natural)
    target = shape if output_shape is None else tuple(int(n) for n in output_shape)
    y = np.zeros(math.prod(shape), X.dtype)
    y[indices.reshape(-1)] = X.reshape(-1)
    if target == shape:
        return y.reshape(shape)
    # Positions count in the natural shape, which then lies in the corner of the target.
    placed = np.zeros(target, X.dtype)
    placed[tuple(slice(n) for n in shape)] = y.reshape(shape)
    return placed
