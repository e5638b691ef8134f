"""Small helpers that kernels share: the array library of a value, axes, wide compute types.

Kernels of library "any" work on NumPy arrays and on torch tensors alike: they ask `namespace` for
the functions of their inputs' library, which carry the names of the Python array API standard.
"""

from __future__ import annotations

import math
import os
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Array: TypeAlias = np.ndarray[Any, Any]

# Types too narrow to add up in: sums and products of them are computed in float32.
_NARROW = frozenset({"float16", "bfloat16"})
_SINGLE = np.dtype(np.float32)
_NUMPY = (np.ndarray, np.generic)


# Bytes that one value may take; None for a quarter of the machine's memory.
value_limit: ContextVar[int | None] = ContextVar("value_limit", default=None)
_HARMLESS = 1 << 26


@cache
def machine_memory() -> int:
    """Bytes of physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_room(shape: Sequence[int], itemsize: int) -> None:
    """Refuse a value that the machine cannot hold, before anything allocates it.

    Systems promise more memory than there is and kill who then uses it: an error comes first.

    Raises:
        MemoryError: it exceeds the limit.

    """
    size = math.prod(shape) * itemsize
    if size > _HARMLESS and size > (value_limit.get() or machine_memory() // 4):
        raise MemoryError(f"a value of shape {list(shape)} takes {size / 1e9:,.1f} GB")


def is_numpy(x: Any) -> bool:
    """Is this an array or a scalar of NumPy?"""
    return isinstance(x, _NUMPY)


def namespace(*arrays: Any) -> Any:
    """The functions of the library of these arrays (None counts for none), by standard name."""
    for x in arrays:
        if x is not None and not isinstance(x, _NUMPY):
            from infer_runtime.torch_library import functions

            return functions()
    return np


def is_narrow(dtype: Any) -> bool:
    """Is this a 16 or 8 bit float, which must be accumulated in float32?"""
    name = str(dtype).rpartition(".")[2]
    return name in _NARROW or name.startswith("float8")


def is_integer(dtype: Any) -> bool:
    """Is this a type of whole numbers (booleans are not)?"""
    if isinstance(dtype, np.dtype):
        return dtype.kind in "iu"
    return not (dtype.is_floating_point or dtype.is_complex or str(dtype) == "torch.bool")


def widened(x: Array) -> Array:
    """`x` in the type to accumulate in: float32 for narrow floats, else as it is."""
    if x.dtype == _SINGLE or not is_narrow(x.dtype):
        return x
    xp = namespace(x)
    return as_type(x, xp.float32)


def as_type(x: Any, dtype: Any) -> Array:
    """`x` as an array of `dtype`, copied only when needed."""
    if isinstance(x, _NUMPY):
        return x.astype(dtype, copy=False)
    return x.to(dtype)


def positive_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front; ValueError when one is out of range."""
    for axis in axes:
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} is out of range for rank {rank}")
    return tuple(axis % rank if rank else axis for axis in axes)


def ints(values: Any) -> tuple[int, ...]:
    """A 1-D integer array, or a single number, as a tuple."""
    return tuple(values.reshape(-1).tolist())


def scalar(x: Array) -> Any:
    """The one value of an array, as a number of Python."""
    return x.reshape(-1)[0].item()


def beside_axis(x: Array, axis: int, rank: int) -> Array:
    """A vector shaped to broadcast along `axis` of an array of `rank`."""
    shape = [1] * rank
    shape[axis] = -1
    return x.reshape(shape)


def number(value: float, like: Any) -> Any:
    """A constant in the type of an array, so that arithmetic with it keeps the type."""
    if isinstance(like, _NUMPY):
        return like.dtype.type(value)
    return like.new_tensor(value)


def moved_axis(x: Array, source: int, target: int) -> Array:
    """`x` with one axis moved to another place."""
    return namespace(x).moveaxis(x, source, target)


def integer_like(values: Any, like: Any) -> Array:
    """Whole numbers as int64, in the library and on the device of an array."""
    if isinstance(like, _NUMPY):
        return np.asarray(values, np.int64)
    xp = namespace(like)
    return xp.asarray(values, dtype=xp.int64, device=like.device)


def like(values: Array, x: Any) -> Array:
    """A NumPy array in the library and on the device of another array."""
    if isinstance(x, _NUMPY):
        return values
    return namespace(x).asarray(values, device=x.device)
