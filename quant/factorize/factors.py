"""Two small matrices in the place of a large one, of least error on the data.

A layer computes y = M' x for what it reads, with second moments A = E[x x']. The matrix of rank r
whose outputs differ least is M V V', V the r leading eigenvectors of M' A M: the singular value
decomposition of A^(1/2) M, without a root of A. `Way.channel` cuts the outputs of a layer in this
manner (Zhang et al. 2016, "Accelerating very deep convolutional networks", section 3.1);
`Way.spatial` a convolution into a column and a row of taps (Jaderberg et al. 2014, "Speeding up
convolutional neural networks with low rank expansions", scheme 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

Way = Literal["channel", "spatial"]

ROUNDING = 1e-12  # of float32 numbers, squared: what is below it is nothing
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Factors:
    """A matrix [inputs, outputs] as first [inputs, R] times second [R, outputs], best rank first.

    The first r columns and rows are the best factors of rank r, whose outputs lose the share
    `lost[r]` of their variance. Both have the same norms, so that they are trained alike.
    """

    first: Array
    second: Array
    lost: Array

    def product(self, rank: int) -> Array:
        """The matrix of this rank."""
        return np.asarray(self.first[:, :rank] @ self.second[:rank])


def factors(matrix: Array, moments: Array | None) -> Factors:
    """All ranks of a matrix [inputs, outputs] at second moments [inputs, inputs].

    None is for inputs that nothing is known of: independent, of the same variance.
    """
    powers, vectors = np.linalg.eigh(matrix.T @ _seen(matrix, moments))
    powers = np.maximum(powers[::-1], 0.0)
    vectors = vectors[:, ::-1][:, : min(matrix.shape)]
    # The sign of an eigenvector is any: the same bytes on every machine need one of the two.
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    vectors = vectors * np.where(largest < 0, -1, 1)
    first = matrix @ vectors
    size = np.sqrt(np.maximum(np.linalg.norm(first, axis=0), _TINY))
    left = np.append(np.cumsum(powers[::-1])[::-1], 0.0) / max(powers.sum(), _TINY)
    return Factors(first / size, vectors.T * size[:, None], np.where(left > ROUNDING, left, 0.0))


def _seen(matrix: Array, moments: Array | None) -> Array:
    return matrix if moments is None else moments @ matrix


def as_matrix(rows: Array, taps: tuple[int, ...], way: Way) -> Array:
    """Weights [outputs, inputs * taps] as the matrix that is cut in this way."""
    if way == "channel":
        return rows.T
    height, width = taps
    split = rows.reshape(len(rows), -1, height, width)
    return split.transpose(1, 2, 0, 3).reshape(-1, len(rows) * width)


def as_rows(matrix: Array, taps: tuple[int, ...], way: Way, outputs: int) -> Array:
    """The inverse of `as_matrix`."""
    if way == "channel":
        return matrix.T
    height, width = taps
    split = matrix.reshape(-1, height, outputs, width)
    return split.transpose(2, 0, 1, 3).reshape(outputs, -1)


def moments_of(moments: Array | None, taps: tuple[int, ...], way: Way) -> Array | None:
    """Second moments of what the first factor reads, of those of whole patches.

    A column of taps is read at each of the kernel's columns: the mean over them.
    """
    if way == "channel" or moments is None:
        return moments
    height, width = taps
    inputs = len(moments) // (height * width)
    split = moments.reshape(inputs, height, width, inputs, height, width)
    size = inputs * height
    return np.asarray(np.einsum("ihwjgw->ihjg", split).reshape(size, size) / width)


def lost(error: Array, rows: Array, moments: Array | None) -> float:
    """Share of the variance of the outputs that an error [outputs, K] of the weights makes."""
    made, whole = (float(np.sum(_seen(x.T, moments) * x.T)) for x in (error, rows))
    share = made / max(whole, _TINY)
    return share if share > ROUNDING else 0.0
