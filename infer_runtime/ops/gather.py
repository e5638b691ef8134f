"""Indexing: gather, scatter, select and sort."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import (
    Array,
    as_type,
    beside_axis,
    check_room,
    integer_like,
    ints,
    is_numpy,
    moved_axis,
    namespace,
    positive_axes,
    scalar,
)  # fmt: skip
from infer_runtime.errors import UnsupportedOpError
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence

# How a value meets what is there already; "none" replaces it.
_REDUCTIONS: dict[str, Any] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


@op("Gather", library="any")
def Gather(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """Entries along the axis; IndexError when one is out of range."""
    if is_numpy(data):
        return np.take(data, indices.astype(np.int64), axis=axis)
    (axis,) = positive_axes([axis], data.ndim)
    places = _counted_from_front(indices, data.shape[axis])
    y = namespace(data).take(data, places.reshape(-1), axis=axis)
    return y.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


def _counted_from_front(indices: Array, size: int) -> Array:
    xp = namespace(indices)
    wide = as_type(indices, xp.int64)
    return xp.where(wide < 0, wide + size, wide)


@op("GatherElements", since=11, library="any")
def GatherElements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """data with the index along `axis` replaced, element by element."""
    return data[_element_index(indices, data.shape, axis)]


def _element_index(indices: Array, shape: Sequence[int], axis: int) -> tuple[Array, ...]:
    """Full coordinates when `indices` replaces one of them."""
    (axis,) = positive_axes([axis], len(shape))
    grid = _grid(indices.shape, indices)
    grid[axis] = as_type(indices, namespace(indices).int64)
    return tuple(grid)


def _grid(shape: Sequence[int], like: Array) -> list[Array]:
    """The coordinate along each axis, shaped to broadcast."""
    return [
        beside_axis(integer_like(range(n), like), axis, len(shape)) for axis, n in enumerate(shape)
    ]


@op("GatherND", since=11, library="any")
def GatherND(data: Array, indices: Array, *, batch_dims: int = 0) -> Array:
    """Entries or slices at coordinates, which are the last axis of the indices."""
    at = moved_axis(as_type(indices, namespace(indices).int64), -1, 0)
    missing = at.ndim - 1 - batch_dims
    grid = _grid(indices.shape[:batch_dims], indices)
    batch = [g.reshape((*g.shape, *[1] * missing)) for g in grid]
    return data[(*batch, *at)]


def _scattered(data: Array, index: Any, updates: Array, reduction: str) -> Array:
    if not is_numpy(data):
        return _scattered_tensor(data, index, updates, reduction)
    target = data.copy()
    if reduction == "none":
        target[index] = updates
    elif reduction in _REDUCTIONS:
        _REDUCTIONS[reduction].at(target, index, updates)
    else:
        raise ValueError(f"unknown reduction {reduction!r}")
    return target


def _scattered_tensor(data: Any, index: Any, updates: Any, reduction: str) -> Array:
    if reduction in {"none", "add"}:
        index = tuple(i.broadcast_to(updates.shape[: i.ndim]) for i in index)
        return data.index_put(index, updates, accumulate=reduction == "add")
    raise UnsupportedOpError(f"a scatter with reduction {reduction!r} has no gradient")


@op("ScatterElements", since=11, library="any")
def ScatterElements(
    data: Array, indices: Array, updates: Array, *, axis: int = 0, reduction: str = "none"
) -> Array:
    """data with elements replaced, or reduced, at indices along the axis."""
    index = _element_index(indices, data.shape, axis)
    return _scattered(data, index, updates, reduction)


@op("Scatter", since=9, library="any")
def Scatter(data: Array, indices: Array, updates: Array, *, axis: int = 0) -> Array:
    """The name of ScatterElements before opset 11."""
    return ScatterElements(data, indices, updates, axis=axis)


@op("ScatterND", since=11, library="any")
def ScatterND(data: Array, indices: Array, updates: Array, *, reduction: str = "none") -> Array:
    """data with entries or slices replaced, or reduced, at coordinates."""
    index = tuple(moved_axis(as_type(indices, namespace(indices).int64), -1, 0))
    return _scattered(data, index, updates, reduction)


@op("OneHot", since=9, library="any")
def OneHot(indices: Array, depth: Array, values: Array, *, axis: int = -1) -> Array:
    """`values[1]` where the new axis has the index; an index out of range has it nowhere."""
    count, xp = int(scalar(depth)), namespace(indices)
    check_room((*indices.shape, max(0, count)), 8)
    rank = indices.ndim + 1
    (axis,) = positive_axes([axis], rank)
    at = _counted_from_front(indices, count)
    hot = xp.expand_dims(at, axis=axis) == beside_axis(integer_like(range(count), at), axis, rank)
    return xp.where(hot, values[1:], values[:1])


@op("Compress", since=9, library="any")
def Compress(data: Array, condition: Array, *, axis: int | None = None) -> Array:
    """Entries along the axis (or of the flat array) where the condition holds."""
    if is_numpy(data):
        return np.compress(condition, data, axis=axis)
    (places,) = namespace(condition).nonzero(condition)
    flat, over = (data.reshape(-1), 0) if axis is None else (data, axis)
    return namespace(data).take(flat, places, axis=over)


@op("NonZero", since=9)
def NonZero(X: Array) -> Array:
    """Coordinates of what is not zero, one row for each axis."""
    return np.stack(np.nonzero(np.atleast_1d(X))).astype(np.int64)


@op("TopK", since=10, library="any")
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
    if k < 0:
        raise ValueError(f"k = {k} is negative")
    xp = namespace(X)
    order = _descending(X, axis) if largest else xp.argsort(X, axis=axis, stable=True)
    at = xp.take(order, integer_like(range(k), order), axis=axis)
    return xp.take_along_axis(X, at, axis=axis), as_type(at, xp.int64)


def _descending(X: Array, axis: int) -> Array:
    """Largest first; equals keep their order, so the flipped array is sorted and flipped back."""
    xp = namespace(X)
    order = xp.flip(xp.argsort(xp.flip(X, axis=axis), axis=axis, stable=True), axis=axis)
    return X.shape[axis] - 1 - order


@op("TopK", library="any")
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
