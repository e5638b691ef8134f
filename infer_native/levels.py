"""Weights of one magnitude for an output: -1, 0 and 1 times a scale, 1 or 2 bits each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from infer_native.program import Array


@dataclass(frozen=True)
class Levels:
    """`signs` int8 [M, ...]: -1, 0 or 1; `scale` float32 [M], not negative."""

    signs: Array
    scale: Array

    @property
    def ternary(self) -> bool:
        """Is a weight 0 whose row is not?"""
        return bool((self.signs == 0).any())

    @staticmethod
    def of(weights: Array) -> Levels:
        """The same for the weights in another order, [M, ...] too."""
        found = levels_of(weights)
        assert found is not None
        return found


def levels_of(weights: Array) -> Levels | None:
    """What the weights [M, ...] are made of, exactly; None where a row has two magnitudes.

    A row of zeros has the scale 0, and every sign that it could have is the same: -1.
    """
    if weights.dtype != np.float32 or not all(map(_of_one_size, (weights[:1], weights))):
        return None
    scale = _sizes(weights).max(axis=1, initial=0)
    signs = np.sign(weights).astype(np.int8)
    signs[scale == 0] = -1
    return Levels(signs, scale)


def _of_one_size(weights: Array) -> bool:
    """Asked of the first row before it is asked of all: most weights are no levels."""
    rows = _sizes(weights)
    scale = rows.max(axis=1, keepdims=True, initial=0)
    return bool(np.isfinite(scale).all() and ((rows == scale) | (rows == 0)).all())


def _sizes(weights: Array) -> Array:
    return np.abs(weights).reshape(len(weights), -1)
