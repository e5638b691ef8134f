"""How far two sets of outputs are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """Of two arrays: absolute errors in their own unit, the rest without unit.

    `max_rel` is the largest error over the largest finite magnitude of the reference, or over
    0.01 where that is smaller; `sqnr_db` is 10 log10(signal power / error power).
    """

    max_abs: float
    max_rel: float
    mean_abs: float
    sqnr_db: float
    cosine: float


# A detector's scores on random inputs are all but zero; float32 sums of larger terms, they carry
# errors of 1e-8 that no ratio to themselves describes.
SMALLEST_MAGNITUDE = 0.01
WORST = Difference(math.inf, math.inf, math.inf, -math.inf, -1.0)
EQUAL = Difference(0.0, 0.0, 0.0, math.inf, 1.0)


def difference(reference: Array, candidate: Array) -> Difference:
    """Compare two arrays of one shape; a NaN or Inf on one side only is an infinite error."""
    if reference.dtype.kind in "OUS":
        return EQUAL if np.array_equal(reference, candidate) else WORST
    if reference.size == 0:
        return EQUAL
    r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    finite = np.isfinite(r)
    if not _same_specials(r, c, finite):
        return WORST
    return _finite_difference(r[finite], c[finite])


def _same_specials(r: Array, c: Array, finite: Array) -> bool:
    if not np.array_equal(finite, np.isfinite(c)):
        return False
    return bool(np.array_equal(r[~finite], c[~finite], equal_nan=True))


def _finite_difference(r: Array, c: Array) -> Difference:
    if r.size == 0:
        return EQUAL
    error = np.abs(c - r)
    largest, noise, signal = float(error.max()), float(error @ error), float(r @ r)
    if noise == 0:
        return EQUAL
    magnitude = float(np.abs(r).max())
    norms = math.sqrt(signal * float(c @ c))
    return Difference(
        max_abs=largest,
        max_rel=largest / max(magnitude, SMALLEST_MAGNITUDE),
        mean_abs=float(error.mean()),
        sqnr_db=10 * math.log10(signal / noise) if signal else -math.inf,
        cosine=float(r @ c) / norms if norms else 0.0,
    )


def check_outputs(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
    """MismatchError when an output is missing, or its shape or dtype differs."""
    for name, wanted in reference.items():
        if name not in candidate:
            raise MismatchError(f"output {name!r} is missing; there are {sorted(candidate)}")
        got = candidate[name]
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            raise MismatchError(
                f"output {name!r} is {got.dtype}{list(got.shape)}, expected "
                f"{wanted.dtype}{list(wanted.shape)}"
            )


def compare_outputs(
    reference: Mapping[str, Array], candidate: Mapping[str, Array]
) -> dict[str, Difference]:
    """Compare outputs of the same names; MismatchError as `check_outputs`."""
    check_outputs(reference, candidate)
    return {name: difference(wanted, candidate[name]) for name, wanted in reference.items()}


def worst(differences: Mapping[str, Difference]) -> Difference:
    """The one with the largest relative error; EQUAL when there is none."""
    return max(differences.values(), key=lambda d: d.max_rel, default=EQUAL)
