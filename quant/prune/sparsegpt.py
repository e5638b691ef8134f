"""Removing weights so that the outputs stay: those that are left make up for those that go.

Frantar and Alistarh, "SparseGPT" (2023), section 3: column by column, as in `quant.gptq`, whose
step is the rounding to zero here. What goes is chosen in each block of columns by the error that
its going leaves in the end, w^2 / [H^-1]_cc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quant.gptq import BLOCK, inverse_factor

if TYPE_CHECKING:
    from quant.prune.pattern import Pattern

    Array = np.ndarray[Any, Any]


def prune_rows(rows: Array, second: Array, kept: int | Pattern) -> Array:
    """The rows with zeros, all others changed.

    Args:
        rows: [groups, outputs, K]; neighbours along K are the groups of a pattern.
        second: E[x x'] of the inputs, [groups, K, K].
        kept: how many elements stay, or the pattern.

    """
    factor = inverse_factor(second)
    left = rows.astype(np.float64)
    mask = np.ones(rows.shape, bool)
    width = rows.shape[2]
    step = BLOCK if isinstance(kept, int) else BLOCK // kept.group * kept.group
    for first in range(0, width, step):
        block = slice(first, min(first + step, width))
        if isinstance(kept, int):
            gone = round((1 - kept / rows.size) * rows[:, :, : block.stop].size)
            _choose(left, factor, mask, block, gone - int(np.sum(~mask)))
        errors = _prune_block(left, factor, mask, block, kept)
        left[:, :, block.stop :] -= np.matmul(errors, factor[:, block, block.stop :])
    return np.where(mask, left, 0.0)


def _harm(left: Array, factor: Array, columns: slice) -> Array:
    diagonal = np.diagonal(factor, axis1=1, axis2=2)[:, None, columns]
    return np.asarray((left[:, :, columns] / diagonal) ** 2)


def _choose(left: Array, factor: Array, mask: Array, block: slice, count: int) -> None:
    harm = _harm(left, factor, block)
    flat = np.ones(harm.size, bool)
    flat[np.argsort(harm.reshape(-1), kind="stable")[:count]] = False
    mask[:, :, block] = flat.reshape(harm.shape)


def _prune_block(
    left: Array, factor: Array, mask: Array, block: slice, kept: int | Pattern
) -> Array:
    """Remove from the columns of a block in turn; returns the errors for the columns after it."""
    errors = np.zeros((*left.shape[:2], block.stop - block.start))
    for column in range(block.start, block.stop):
        if not isinstance(kept, int) and column % kept.group == 0:
            group = slice(column, column + kept.group)
            mask[:, :, group] = kept.mask(_harm(left, factor, group), -1)
        missed = np.where(mask[:, :, column], 0.0, left[:, :, column])
        error = missed / factor[:, column, column, None]
        rest = factor[:, None, column, column : block.stop]
        left[:, :, column : block.stop] -= error[:, :, None] * rest
        errors[:, :, column - block.start] = error
    return errors
