"""Seeded inputs for checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]

MEAN = 0.25  # not zero: a zero mean hides errors that are proportional to the sum
SMALL = 4  # integers are often indices; few vocabularies and axes are smaller than this


def random_feeds(
    inputs: Sequence[TensorInfo],
    seed: int = 0,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Array]:
    """One seeded array for each input.

    Floats are normal with mean 0.25 and deviation 1, booleans even. Integers fill the domain of
    their input; without one they are 0 to 3, or all that 8 bits hold: pixels, quantised values.

    Args:
        inputs: names, shapes and dtypes.
        seed: of the generator.
        shapes: sizes of inputs with dynamic dimensions; those not named get 1. A symbolic
            dimension that one input fixes has that size in all of them.

    Raises:
        UsageError: a shape has another rank, or differs from a fixed dimension.

    """
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    symbols: dict[str, int] = {}
    for info in inputs:
        if info.name in given:
            bind_symbols(info, given[info.name], symbols)
    generator = np.random.default_rng(seed)
    return {
        info.name: _draw(
            generator,
            given.get(info.name) or _resolved(info, symbols),
            info,
        )
        for info in inputs
    }


def bind_symbols(info: TensorInfo, shape: tuple[int, ...], symbols: dict[str, int]) -> None:
    """Add the sizes of symbolic dimensions; UsageError when the shape does not fit the input."""
    if info.shape is None:
        return
    fits = len(shape) == len(info.shape) and all(
        not isinstance(d, int) or d == s for d, s in zip(info.shape, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"shape {list(shape)} does not fit input {info.name!r} of shape {list(info.shape)}"
        )
    symbols |= {d: s for d, s in zip(info.shape, shape, strict=True) if isinstance(d, str)}


def _resolved(info: TensorInfo, symbols: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else symbols.get(d or "", 1) for d in (info.shape or ()))


def _draw(
    generator: np.random.Generator,
    shape: Sequence[int],
    info: TensorInfo,
) -> Array:
    dtype = info.dtype
    if dtype == np.dtype(bool):
        return np.asarray(generator.integers(0, 2, shape), bool)
    if dtype == np.dtype(object):
        return np.full(shape, "text", object)
    if info.domain is not None and np.issubdtype(dtype, np.integer):
        return np.asarray(generator.integers(*info.domain, shape), dtype)
    if dtype in (np.int8, np.uint8):
        return np.asarray(generator.integers(*_limits(dtype), shape, endpoint=True), dtype)
    if np.issubdtype(dtype, np.integer):
        return np.asarray(generator.integers(0, SMALL, shape), dtype)
    return np.asarray(generator.standard_normal(shape) + MEAN, dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)
