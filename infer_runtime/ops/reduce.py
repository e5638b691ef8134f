"""Reductions over axes, and arg-max and arg-min."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import Array, as_type, beside_axis, ints, number, positive_axes, widened
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Axes = tuple[int, ...]


def _log_sum_exp(x: Array, axis: Axes, keepdims: bool) -> Array:
    top = x.max(axis=axis, keepdims=True, initial=-np.inf)
    base = np.where(np.isfinite(top), top, 0)
    total: Array = np.log(np.exp(x - base).sum(axis=axis, keepdims=True)) + base
    return total if keepdims else np.squeeze(total, axis=axis)


def _max(x: Array, axis: Axes, keepdims: bool) -> Any:
    initial = {} if x.size else {"initial": _extreme(x.dtype, -1)}
    return x.max(axis=axis, keepdims=keepdims, **initial)


def _min(x: Array, axis: Axes, keepdims: bool) -> Any:
    initial = {} if x.size else {"initial": _extreme(x.dtype, 1)}
    return x.min(axis=axis, keepdims=keepdims, **initial)


def _extreme(dtype: np.dtype[Any], sign: int) -> Any:
    """The value that loses against all others: what an empty reduction yields."""
    if dtype.kind == "b":
        return sign > 0
    if np.issubdtype(dtype, np.integer):
        return np.iinfo(dtype).max if sign > 0 else np.iinfo(dtype).min
    return sign * np.inf


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": lambda x, axis, keepdims: x.sum(axis=axis, keepdims=keepdims),
    "ReduceMean": lambda x, axis, keepdims: x.mean(axis=axis, keepdims=keepdims),
    "ReduceProd": lambda x, axis, keepdims: x.prod(axis=axis, keepdims=keepdims),
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceL1": lambda x, axis, keepdims: np.abs(x).sum(axis=axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt((x * x).sum(axis=axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: (x * x).sum(axis=axis, keepdims=keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: np.log(x.sum(axis=axis, keepdims=keepdims)),
    "ReduceLogSumExp": _log_sum_exp,
}


def _with_axes_attribute(name: str) -> Callable[..., Array]:
    reduction = _REDUCTIONS[name]

    def kernel(data: Array, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Array:
        where = positive_axes(axes if axes else range(data.ndim), data.ndim)
        return as_type(reduction(widened(data), axis=where, keepdims=bool(keepdims)), data.dtype)

    return kernel


def _with_axes_input(name: str) -> Callable[..., Array]:
    reduce_over = _with_axes_attribute(name)

    def kernel(
        data: Array, axes: Array | None = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Array:
        over = () if axes is None else ints(axes)
        if not over and noop_with_empty_axes:
            return _of_single_elements(name, data)
        return reduce_over(data, axes=over, keepdims=keepdims)

    return kernel


def _of_single_elements(name: str, data: Array) -> Array:
    """A reduction over no axes: each element is reduced alone (so ReduceL1 is abs)."""
    alone = _REDUCTIONS[name](widened(data)[..., None], axis=(data.ndim,), keepdims=False)
    return as_type(alone, data.dtype)


for _name in _REDUCTIONS:
    op(_name)(_with_axes_attribute(_name))
    op(_name, since=13 if _name == "ReduceSum" else 18)(_with_axes_input(_name))


def _arg(find: Callable[..., Any], data: Array, axis: int, keepdims: int, last: int) -> Array:
    if last:
        place = data.shape[axis] - 1 - find(np.flip(data, axis), axis=axis)
    else:
        place = find(data, axis=axis)
    return as_type(np.expand_dims(place, axis) if keepdims else place, np.dtype(np.int64))


@op("ArgMax")
def ArgMax(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Where the first (or last) maximum along the axis is."""
    return _arg(np.argmax, data, axis, keepdims, select_last_index)


@op("ArgMin")
def ArgMin(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Where the first (or last) minimum along the axis is."""
    return _arg(np.argmin, data, axis, keepdims, select_last_index)


@op("CumSum", since=11)
def CumSum(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Running sum along an axis."""
    return _cumulative(np.cumsum, x, int(axis.reshape(-1)[0]), exclusive, reverse, 0)


@op("CumProd", since=26)
def CumProd(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Running product along an axis."""
    return _cumulative(np.cumprod, x, int(axis.reshape(-1)[0]), exclusive, reverse, 1)


def _cumulative(
    run: Callable[..., Array], x: Array, axis: int, exclusive: int, reverse: int, first: int
) -> Array:
    (axis,) = positive_axes([axis], x.ndim)
    given = np.flip(x, axis) if reverse else x
    y = run(given, axis=axis, dtype=x.dtype)
    if exclusive:
        y = np.roll(y, 1, axis)
        beginning = beside_axis(np.arange(x.shape[axis]) == 0, axis, x.ndim)
        y = np.where(beginning, number(first, x), y)
    return np.ascontiguousarray(np.flip(y, axis)) if reverse else y
