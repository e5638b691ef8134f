"""Rounding of weights that keeps the outputs: errors of one weight are made up for by the next.

Frantar, Ashkboos, Hoefler, Alistarh: GPTQ (2022), after Optimal Brain Quantization. The columns go
by falling second moment, as in its act-order variant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

DAMPING = 0.01  # of the mean of the diagonal: keeps the moments of few samples invertible
BLOCK = 64  # columns between two updates of all that follow


def round_rows(
    rows: Array, second: Array, steps: Array, low: int | Array, high: int | Array
) -> Array:
    """Levels whose products with inputs of these moments are close to those of the rows.

    Each row takes the better of this rounding and rounding to nearest.

    Args:
        rows: real weights, [groups, outputs, K].
        second: E[x x'] of the inputs of each group, [groups, K, K].
        steps: the scale of each weight, broadcastable to the rows.
        low: smallest level, or that of each weight, broadcastable to the rows.
        high: largest level, likewise.

    """
    rows = rows.astype(np.float64)
    steps = np.broadcast_to(steps.astype(np.float64), rows.shape)
    nearest = np.clip(np.rint(rows / steps), low, high)
    limits = (np.broadcast_to(low, rows.shape), np.broadcast_to(high, rows.shape))
    compensated = _compensated(rows, second, steps, limits)
    errors = [output_error(rows - levels * steps, second) for levels in (compensated, nearest)]
    better = errors[0] < errors[1]
    return np.where(better[..., None], compensated, nearest)


def output_error(missed: Array, second: Array) -> Array:
    """Mean squared error of each output that lost so much of its weights [groups, outputs, K]."""
    return np.asarray((np.matmul(missed, second) * missed).sum(axis=-1))


def _compensated(rows: Array, second: Array, steps: Array, limits: tuple[Array, Array]) -> Array:
    """Column by column, from that with the largest inputs on."""
    order = np.argsort(-np.diagonal(second, axis1=1, axis2=2), axis=1, kind="stable")
    groups = np.arange(len(rows))[:, None, None]
    factor = inverse_factor(second[groups, order[:, :, None], order[:, None, :]])
    left = np.take_along_axis(rows, order[:, None, :], axis=2)
    steps = np.take_along_axis(steps, order[:, None, :], axis=2)
    low, high = (np.take_along_axis(limit, order[:, None, :], axis=2) for limit in limits)
    levels = np.empty_like(left)
    for first in range(0, left.shape[2], BLOCK):
        block = slice(first, min(first + BLOCK, left.shape[2]))
        errors = _round_block(left, steps, factor, levels, block, (low, high))
        left[:, :, block.stop :] -= np.matmul(errors, factor[:, block, block.stop :])
    result = np.empty_like(levels)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], levels.shape), levels, axis=2)
    return result


def _round_block(
    left: Array,
    steps: Array,
    factor: Array,
    levels: Array,
    block: slice,
    limits: tuple[Array, Array],
) -> Array:
    """Round the columns of a block in turn; returns their errors, for the columns after it."""
    errors = np.zeros((*left.shape[:2], block.stop - block.start))
    for column in range(block.start, block.stop):
        wanted = left[:, :, column]
        low, high = (limit[:, :, column] for limit in limits)
        levels[:, :, column] = np.clip(np.rint(wanted / steps[:, :, column]), low, high)
        missed = wanted - levels[:, :, column] * steps[:, :, column]
        error = missed / factor[:, column, column, None]
        rest = factor[:, None, column, column : block.stop]
        left[:, :, column : block.stop] -= error[:, :, None] * rest
        errors[:, :, column - block.start] = error
    return errors


def inverse_factor(second: Array) -> Array:
    """The upper Cholesky factor of the inverse; that of 1 for inputs that were all zero."""
    size = second.shape[-1]
    average = np.trace(second, axis1=1, axis2=2) / size
    damping = np.where(average > 0, DAMPING * average, 1.0)
    inverse = np.linalg.inv(second + damping[:, None, None] * np.eye(size))
    lower = np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2)
    return np.asarray(lower.swapaxes(1, 2))
