"""Indexing: gather, scatter, select and sort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import Array, beside_axis, ints, positive_axes
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence

# How a value meets what is there already; "none" replaces it.
_REDUCTIONS: dict[str, Any] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


@op("Gather")
def Gather(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """Entries along the axis; IndexError when one is out of range."""
    return np.take(data, indices.astype(np.int64), axis=axis)


@op("GatherElements", since=11)
def GatherElements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """data with the index along `axis` replaced, element by element."""
    return data[_element_index(indices, data.shape, axis)]


def _element_index(indices: Array, shape: Sequence[int], axis: int) -> tuple[Array, ...]:
    """Full coordinates when `indices` replaces one of them."""
    (axis,) = positive_axes([axis], len(shape))
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = indices.astype(np.int64)
    return tuple(grid)


@op("GatherND", since=11)
def GatherND(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """Entries or slices at coordinates, which are the last axis of the indices."""
    at = np.moveaxis(indices.astype(np.int64), -1, 0)
    grid = np.ogrid[tuple(slice(n) for n in indices.shape[:batch_dims])]
    missing = at.ndim - 1 - batch_dims
    batch = [g.reshape(*g.shape, *[1] * missing) for g in grid]
    return np.asarray(data[(*batch, *at)])


def _scatter(target: Array, index: Any, updates: Array, reduction: str) -> Array:
    if reduction == "none":
        target[index] = updates
    elif reduction in _REDUCTIONS:
        _REDUCTIONS[reduction].at(target, index, updates)
    else:
        raise ValueError(f"unknown reduction {reduction!r}")
    return target


@op("ScatterElements", since=11)
def ScatterElements(
    data: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none"
) -> Array:
    """data with elements replaced, or reduced, at indices along the axis."""
    index = _element_index(indices, data.shape, axis)
    return _scatter(data.copy(), index, updates, reduction)


@op("Scatter", since=9)
def Scatter(data: Array, indices: Array, updates: Array, *, axis: int = 0) -> Array:
    """The name of ScatterElements before opset 11."""
    return ScatterElements(data, indices, updates, axis=axis)


@op("ScatterND", since=11)
def ScatterND(data: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """data with entries or slices replaced, or reduced, at coordinates."""
    index = tuple(np.moveaxis(indices.astype(np.int64), -1, 0))
    return _scatter(data.copy(), index, updates, reduction)


@op("OneHot", since=9)
def OneHot(indices: Array, depth: Array, values: Array, *, axis: int = -1) -> Array:
    """`values[1]` where the new axis has the index; an index out of range has it nowhere."""
    count = int(depth.reshape(-1)[0])
    rank = indices.ndim + 1
    (axis,) = positive_axes([axis], rank)
    at = indices.astype(np.int64)
    at = np.where(at < 0, at + count, at)
    hot = np.equal(np.expand_dims(at, axis), beside_axis(np.arange(count), axis, rank))
    return np.where(hot, values[1:], values[:1])


@op("Compress", since=9)
def Compress(data: Array, condition: Array, *, axis: int | None = None) -> Array:
    """Entries along the axis (or of the flat array) where the condition holds."""
    return np.compress(condition, data, axis=axis)


@op("NonZero", since=9)
def NonZero(X: Array) -> Array:
    """Coordinates of what is not zero, one row for each axis."""
    return np.stack(np.nonzero(np.atleast_1d(X))).astype(np.int64)


@op("TopK", since=10)
def TopK(
    X: Array,
    K: Array,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,  # noqa: A002
) -> tuple[Array, Array]:
    """The k largest or smallest, the first of equals first; always sorted."""
    del sorted  # any order is allowed without it
    (k,) = ints(K)
    if k > X.shape[axis]:
        raise ValueError(f"k = {k} exceeds axis {axis} of length {X.shape[axis]}")
    order = _descending(X, axis) if largest else np.argsort(X, axis=axis, kind="stable")
    at = np.take(order, np.arange(k), axis=axis)
    return np.take_along_axis(X, at, axis), at.astype(np.int64)


def _descending(X: Array, axis: int) -> Array:
    """Largest first; equals keep their order, so the flipped array is sorted and flipped back."""
    order = np.flip(np.argsort(np.flip(X, axis), axis=axis, kind="stable"), axis)
    back: Array = X.shape[axis] - 1 - order
    return back


@op("TopK")
def TopK_1(X: Array, *, k: int, axis: int = -1) -> tuple[Array, Array]:
    """Before opset 10 k is an attribute."""
    return TopK(X, np.array([k]), axis=axis)


@op("Unique", since=11)
def Unique(
    X: Array,
    *,
    axis: int | None = None,
    sorted: int = 1,  # noqa: A002
) -> tuple[Array, Array, Array, Array]:
    """Distinct values (slices along `axis`), first places, inverse, counts."""
    values, first, inverse, counts = np.unique(
        X, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        rank = np.argsort(order)
        values = np.take(values, order, axis=axis or 0)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    return values, _long(first), _long(inverse), _long(counts)


def _long(x: Array) -> Array:
    return x.astype(np.int64, copy=False)
