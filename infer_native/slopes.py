"""Functions of bytes that are two straight lines through the zero point, one below, one above.

Given:  y = Q(PRelu(DQ(x))), with a slope for each channel or one for all
Result: y = round((x - zero) * (x < zero ? down : up)) + zero_out

The factors are such that every byte gets exactly the table's value; else there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from infer_native.program import Array

NEAR = 3  # floats on either side of a factor that are tried too


@dataclass(frozen=True)
class Slopes:
    """`up` and `down` are float32 [channels], or [1] for all of them."""

    zero: int
    up: Array
    down: Array
    zero_out: int


def slopes(tables: Array, zero: int, zero_out: int) -> Slopes | None:
    """The lines of uint8 tables [channels, 256], or None where they are none."""
    if not 0 <= zero <= 255 or not 0 <= zero_out <= 255:
        return None
    steps = np.arange(256) - zero
    up, down = (
        [_factor(steps[side], row[side], zero_out) for row in tables]
        for side in (steps > 0, steps < 0)
    )
    if None in up or None in down or (tables[:, zero] != zero_out).any():
        return None
    return Slopes(zero, np.array(up, np.float32), np.array(down, np.float32), zero_out)


def _factor(steps: Array, wanted: Array, zero_out: int) -> np.float32 | None:
    """A factor that brings the steps to the wanted bytes, the one in the middle of its range."""
    if not steps.size:
        return np.float32(0)
    # What rounds to each byte; the ends of the range stand for all beyond.
    low, high = wanted.astype(np.float64) - 0.5, wanted.astype(np.float64) + 0.5
    low[wanted == 0], high[wanted == 255] = -np.inf, np.inf
    edges = np.sort(np.stack([(low - zero_out) / steps, (high - zero_out) / steps]), axis=0)
    least, most = edges[0].max(), edges[1].min()
    if np.isinf(least) or np.isinf(most):
        least, most = (max(least, -1e6), most) if np.isinf(least) else (least, min(most, 1e6))
    middle = np.float32((least + most) / 2)
    for number in range(-NEAR, NEAR + 1):
        factor = np.float32(middle + number * np.spacing(middle))
        with np.errstate(over="ignore"):
            rounded = np.rint(steps.astype(np.float32) * factor) + np.float32(zero_out)
        if np.array_equal(np.clip(rounded, 0, 255), wanted):
            return factor
    return None
