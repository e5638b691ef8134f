"""Reductions over axes, and arg-max and arg-min."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import (
    Array,
    as_type,
    beside_axis,
    integer_like,
    ints,
    is_integer,
    namespace,
    number,
    positive_axes,
    widened,
)  # fmt: skip
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Axes = tuple[int, ...]


def _sum(x: Array, axis: Axes, keepdims: bool) -> Array:
    return namespace(x).sum(x, axis=axis, keepdims=keepdims)


def _log_sum_exp(x: Array, axis: Axes, keepdims: bool) -> Array:
    xp = namespace(x)
    if not math.prod(x.shape):
        return xp.log(_sum(x, axis, keepdims))
    top = xp.max(x, axis=axis, keepdims=True)
    base = xp.where(xp.isfinite(top), top, number(0, top))
    total = xp.log(xp.sum(xp.exp(x - base), axis=axis, keepdims=True)) + base
    return total if keepdims else xp.squeeze(total, axis=axis)


def _max(x: Array, axis: Axes, keepdims: bool) -> Any:
    return _extremum(x, axis, keepdims, -1)


def _min(x: Array, axis: Axes, keepdims: bool) -> Any:
    return _extremum(x, axis, keepdims, 1)


def _extremum(x: Array, axis: Axes, keepdims: bool, sign: int) -> Any:
    xp = namespace(x)
    if xp is np:
        initial = {} if x.size else {"initial": _worst(x.dtype, sign)}
        return (x.max if sign < 0 else x.min)(axis=axis, keepdims=keepdims, **initial)
    return (xp.max if sign < 0 else xp.min)(x, axis=axis, keepdims=keepdims)


def _worst(dtype: np.dtype[Any], sign: int) -> Any:
    """The value that loses against all others: what an empty reduction yields."""
    if dtype.kind == "b":
        return sign > 0
    if np.issubdtype(dtype, np.integer):
        return np.iinfo(dtype).max if sign > 0 else np.iinfo(dtype).min
    return sign * np.inf


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": _sum,
    "ReduceMean": lambda x, axis, keepdims: _mean(x, axis, keepdims),
    "ReduceProd": lambda x, axis, keepdims: _product(x, axis, keepdims),
    "ReduceMax": _max,
    "ReduceMin": _min,
    "ReduceL1": lambda x, axis, keepdims: _sum(namespace(x).abs(x), axis, keepdims),
    "ReduceL2": lambda x, axis, keepdims: namespace(x).sqrt(_sum(x * x, axis, keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: _sum(x * x, axis, keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: namespace(x).log(_sum(x, axis, keepdims)),
    "ReduceLogSumExp": _log_sum_exp,
}


def _mean(x: Array, axis: Axes, keepdims: bool) -> Any:
    xp = namespace(x)
    if xp is np or not is_integer(x.dtype):
        return xp.mean(x, axis=axis, keepdims=keepdims)
    return xp.mean(as_type(x, xp.float64), axis=axis, keepdims=keepdims)


def _product(x: Array, axis: Axes, keepdims: bool) -> Any:
    return namespace(x).prod(x, axis=axis, keepdims=keepdims)


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
    op(_name, library="any")(_with_axes_attribute(_name))
    _since = 13 if _name == "ReduceSum" else 18
    op(_name, since=_since, library="any")(_with_axes_input(_name))


def _arg(name: str, data: Array, axis: int, keepdims: int, last: int) -> Array:
    xp = namespace(data)
    find = getattr(xp, name)
    if last:
        place = data.shape[axis] - 1 - find(xp.flip(data, axis=axis), axis=axis)
    else:
        place = find(data, axis=axis)
    return as_type(xp.expand_dims(place, axis=axis) if keepdims else place, xp.int64)


@op("ArgMax", library="any")
def ArgMax(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Where the first (or last) maximum along the axis is."""
    return _arg("argmax", data, axis, keepdims, select_last_index)


@op("ArgMin", library="any")
def ArgMin(data: Array, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Where the first (or last) minimum along the axis is."""
    return _arg("argmin", data, axis, keepdims, select_last_index)


@op("CumSum", since=11, library="any")
def CumSum(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Running sum along an axis."""
    return _cumulative("cumulative_sum", x, ints(axis)[0], exclusive, reverse, 0)


@op("CumProd", since=26, library="any")
def CumProd(x: Array, axis: Array, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Running product along an axis."""
    return _cumulative("cumulative_prod", x, ints(axis)[0], exclusive, reverse, 1)


def _cumulative(name: str, x: Array, axis: int, exclusive: int, reverse: int, first: int) -> Array:
    (axis,) = positive_axes([axis], x.ndim)
    xp = namespace(x)
    given = xp.flip(x, axis=axis) if reverse else x
    y = getattr(xp, name)(given, axis=axis, dtype=x.dtype)
    if exclusive:
        y = xp.roll(y, 1, axis=axis)
        places = beside_axis(integer_like(range(x.shape[axis]), x), axis, x.ndim)
        y = xp.where(places == 0, number(first, x), y)
    return xp.flip(y, axis=axis) if reverse else y
