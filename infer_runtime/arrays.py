"""Small helpers that kernels share: the array type, axes, wide compute types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = np.ndarray[Any, Any]

# Types too narrow to add up in: sums and products of them are computed in float32.
_NARROW = frozenset({"float16", "bfloat16"})


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Is this a 16 or 8 bit float, which must be accumulated in float32?"""
    return dtype.name in _NARROW or dtype.name.startswith("float8")


def widened(x: Array) -> Array:
    """`x` in the type to accumulate in: float32 for narrow floats, else as it is."""
    return x.astype(np.float32) if is_narrow(x.dtype) else x


def as_type(x: Any, dtype: np.dtype[Any]) -> Array:
    """`x` as an array of `dtype`, copied only when needed."""
    return np.asarray(x).astype(dtype, copy=False)


def positive_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front; ValueError when one is out of range."""
    for axis in axes:
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} is out of range for rank {rank}")
    return tuple(axis % rank if rank else axis for axis in axes)


def ints(values: Any) -> tuple[int, ...]:
    """A 1-D integer array, or a single number, as a tuple."""
    return tuple(int(v) for v in np.asarray(values).reshape(-1))


def beside_axis(x: Array, axis: int, rank: int) -> Array:
    """A vector shaped to broadcast along `axis` of an array of `rank`."""
    shape = [1] * rank
    shape[axis] = -1
    return x.reshape(shape)


def number(value: float, like: Array) -> Array:
    """A constant in the type of an array, so that arithmetic with it keeps the type."""
    return np.asarray(value, like.dtype)
