"""Orders of axes: composed, undone, carried to values with more or fewer axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Perm: TypeAlias = tuple[int, ...]  # axis i of the turned value is axis perm[i] of the other
T = TypeVar("T")


def turned_by(items: Sequence[T], perm: Sequence[int]) -> list[T]:
    """One item for each axis, in the new order. Of a permutation: that one first, then `perm`."""
    return [items[axis] for axis in perm]


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes it."""
    return tuple(perm.index(i) for i in range(len(perm)))


def is_still(perm: Sequence[int]) -> bool:
    """Does it move nothing?"""
    return list(perm) == list(range(len(perm)))


def moves_ones(sizes: Sequence[object], perm: Sequence[int]) -> bool:
    """Does it move only axes of size 1, which leaves all elements in their order?"""
    long = [axis for axis in perm if sizes[axis] != 1]
    return long == sorted(long)


def narrow(perm: Perm, gone: Collection[int]) -> Perm:
    """What it does to the other axes when some go."""
    left = [axis for axis in range(len(perm)) if axis not in gone]
    return tuple(left.index(axis) for axis in perm if axis not in gone)


def widen(perm: Perm, new: Collection[int]) -> Perm:
    """The same for a value with more axes; a new one comes before the axis it was before."""
    count = len(perm) + len(new)
    left = [axis for axis in range(count) if axis not in new]
    order = [left[axis] for axis in perm]
    for axis in sorted(new, reverse=True):
        order.insert(order.index(axis + 1) if axis + 1 < count else len(order), axis)
    return tuple(order)


def turned_array(array: np.ndarray[Any, Any], perm: Perm) -> np.ndarray[Any, Any]:
    """A constant turned, after it got the axes that broadcasting would give it."""
    wide = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    return np.ascontiguousarray(wide.transpose(perm))
