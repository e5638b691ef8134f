"""How many elements each weight keeps, and which, by their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Array = np.ndarray[Any, Any]


def kept_counts(arrays: Sequence[Array], sparsity: float, *, uniform: bool) -> list[int]:
    """The elements that each array keeps, of all together at most 1 - sparsity.

    `uniform`: the same share of each. Otherwise the largest of all arrays, each element measured
    by its share in the squares of those of its array that are not smaller than it (Lee et al.
    2021, "Layer-adaptive sparsity for the magnitude-based pruning"): the error of the outputs
    that removing it adds, whatever scale the array has. No array loses everything.

    Raises:
        UsageError: less than one element of each array would be left.

    """
    if uniform:
        counts = [int((1 - sparsity) * a.size) for a in arrays]
    else:
        scores = [_adaptive(a) for a in arrays]
        kept = int((1 - sparsity) * sum(a.size for a in arrays))
        joined = np.concatenate(scores)
        order = np.argsort(-joined, kind="stable")[:kept]
        owner = np.repeat(np.arange(len(arrays)), [a.size for a in arrays])[order]
        counts = np.bincount(owner, minlength=len(arrays)).tolist()
    if min(counts, default=1) < 1:
        raise UsageError(
            f"--sparsity {100 * sparsity:g}% leaves nothing of a weight of "
            f"{arrays[counts.index(0)].size} elements; choose less"
        )
    return counts


def _adaptive(array: Array) -> Array:
    """The scores of one array; its largest element has 1."""
    squares = np.sort(array.reshape(-1).astype(np.float64) ** 2)
    left = np.cumsum(squares[::-1])[::-1]
    return np.divide(squares, left, out=np.zeros_like(squares), where=left > 0)


def largest(scores: Array, count: int) -> Array:
    """Where the `count` largest are; of equal ones the first."""
    mask = np.zeros(scores.size, bool)
    mask[np.argsort(-scores.reshape(-1), kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


def largest_of_rows(scores: Array, count: int) -> Array:
    """As `largest`, but each row [..., K] keeps as many as any other, give or take one."""
    rows = scores.reshape(-1, scores.shape[-1])
    order = np.argsort(-rows, axis=1, kind="stable")
    base, more = divmod(count, len(rows))
    mask = np.zeros(rows.shape, bool)
    np.put_along_axis(mask, order[:, :base], values=True, axis=1)
    if more:
        next_best = order[:, base]
        lucky = np.argsort(-rows[np.arange(len(rows)), next_best], kind="stable")[:more]
        mask[lucky, next_best[lucky]] = True
    return mask.reshape(scores.shape)
