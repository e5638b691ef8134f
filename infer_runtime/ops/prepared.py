"""Kernels whose other inputs are constant: what follows from those is computed once, at load.

For NumPy only, and only where finding out costs about as much as the kernel itself.
"""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from infer_runtime.arrays import Array, ints, positive_axes
from infer_runtime.ops import matmul, norm, shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Compute = Callable[..., Any]

F = TypeVar("F", bound="Callable[..., Any]")

_MAKERS: dict[Any, Callable[..., Any]] = {}


def prepares(*kernels: Any) -> Callable[[F], F]:
    """Register a function from constant inputs and attributes to the rest of these kernels.

    It takes the inputs after the first one, and returns a function of the first input (and of
    the others, which it ignores), or None when these constants are better left to the kernel.
    """

    def register(make: F) -> F:
        _MAKERS.update(dict.fromkeys(kernels, make))
        return make

    return register


def prepared(compute: Compute, constants: Sequence[Array | None]) -> Compute:
    """`compute`, faster for these constant values of all inputs but the first."""
    kernel = compute.func if isinstance(compute, partial) else compute
    if kernel not in _MAKERS:
        return compute
    attributes = compute.keywords if isinstance(compute, partial) else {}
    try:
        with np.errstate(all="ignore"):
            return _MAKERS[kernel](*constants, **attributes) or compute
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return compute  # constants that do not fit: if they are needed, the run reports it


@prepares(shape.Slice)
def _slice(
    starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Compute | None:
    first, last = ints(starts), ints(ends)
    by = (1,) * len(first) if steps is None else ints(steps)
    if min(by, default=1) < 0:
        return None
    parts = [slice(*part) for part in zip(first, last, by, strict=True)]

    @cache
    def index(rank: int) -> tuple[slice, ...]:
        over = range(len(parts)) if axes is None else positive_axes(ints(axes), rank)
        at = dict(zip(over, parts, strict=True))
        return tuple(at.get(axis, slice(None)) for axis in range(rank))

    return lambda data, *_: data[index(data.ndim)]


@prepares(shape.Unsqueeze)
def _unsqueeze(axes: Array) -> Compute:
    added = ints(axes)

    @cache
    def index(rank: int) -> tuple[slice | None, ...]:
        places = {*positive_axes(added, rank + len(added))}
        if len(places) != len(added):
            raise ValueError(f"axes {list(added)} name one twice")
        return tuple(None if i in places else slice(None) for i in range(rank + len(added)))

    return lambda data, *_: data[index(data.ndim)]


@prepares(shape.Squeeze)
def _squeeze(axes: Array | None = None) -> Compute | None:
    if axes is None:
        return None
    given = ints(axes)
    over = cache(partial(positive_axes, given))
    return lambda data, *_: data.squeeze(over(data.ndim))


@prepares(shape.Reshape)
def _reshape(target: Array, *, allowzero: int = 0) -> Compute | None:
    sizes = ints(target)
    if 0 in sizes and not allowzero:
        return None
    return lambda data, *_: data.reshape(sizes)


@prepares(norm.BatchNormalization, norm.BatchNormalization_7)
def _batch_normalization(
    scale: Array, B: Array, mean: Array, var: Array, *, epsilon: float = 1e-5, **others: Any
) -> Compute | None:
    if others.get("training_mode") or not others.get("spatial", 1):
        return None
    factor, shift = norm.channel_affine(scale, B, mean, var, epsilon)
    return lambda X, *_: norm.scaled_channels(X, factor, shift)


@prepares(matmul.Gemm)
def _gemm(
    B: Array, C: Array | None = None, *, transA: int = 0, transB: int = 0, **factors: float
) -> Compute | None:
    if B.dtype != np.float32 or any(factor != 1 for factor in factors.values()):
        return None
    b = B.T if transB else B
    if transA or C is None or C.dtype != B.dtype:
        return None
    return lambda A, *_: A @ b + C
