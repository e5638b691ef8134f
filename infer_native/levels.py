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
    rows = np.abs(weights).reshape(len(weights), -1)
    scale = rows.max(axis=1, initial=0)
    if weights.dtype != np.float32 or not np.isfinite(scale).all():
        return None
    if not ((rows == scale[:, None]) | (rows == 0)).all():
        return None
    signs = np.sign(weights).astype(np.int8)
    signs[scale == 0] = -1
    return Levels(signs, scale)
