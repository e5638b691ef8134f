"""The error function, which NumPy does not have."""

from __future__ import annotations

import numpy as np

from infer_runtime.arrays import Array, as_type, is_numpy

# W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp. 23 (1969).
_NEAR_P = (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
           3.77485237685302021e2, 3.20937758913846947e3)  # fmt: skip
_NEAR_Q = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
           2.84423683343917062e3)  # fmt: skip
_FAR_P = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
          6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
          1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3)  # fmt: skip
_FAR_Q = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
          1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
          3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip
_NEAR = 0.46875  # Cody's border between the two approximations
_FLAT = 6.0  # 1 - erf(6) is below the float64 epsilon


# For float32, erf(x) = x P(x^2) / Q(x^2) up to the border from which on it is one. Fitted by
# iterated linear least squares (Sanathanan and Koerner, Transfer function synthesis as a ratio of
# two complex polynomials, 1963) on Chebyshev points; largest error 2e-8 before rounding.
_SINGLE_P = (2.048721447805147e-06, 2.8588963123911735e-04, 3.795460352849452e-03,
             5.283742425850786e-02, 1.9105746246514957e-01, 1.12837908788998)  # fmt: skip
_SINGLE_Q = (3.813191970403333e-05, 1.1705003131185644e-03, 1.5026993877654578e-02,
             1.1438120526612569e-01, 5.026525203583471e-01, 1.0)  # fmt: skip
_SINGLE_END, _ONE = np.float32(3.92), np.float32(1)


def erf(x: Array) -> Array:
    """The error function of every element, in its dtype.

    The absolute error is below 1e-12 for float64, below 5e-7 for float32.
    """
    if not is_numpy(x):
        import torch

        return torch.erf(x)  # type: ignore[arg-type,return-value]
    if x.dtype == np.float32:
        return _erf_of_float32(np.atleast_1d(x)).reshape(x.shape)
    wide = x.astype(np.float64)
    size = np.minimum(np.abs(wide), _FLAT)
    far = 1 - np.exp(-size * size) * np.polyval(_FAR_P, size) / np.polyval(_FAR_Q, size)
    square = np.minimum(size, _NEAR) ** 2
    near = size * np.polyval(_NEAR_P, square) / np.polyval(_NEAR_Q, square)
    return as_type(np.copysign(np.where(size <= _NEAR, near, far), wide), x.dtype)


def _erf_of_float32(x: Array) -> Array:
    """The same in single precision: fewer terms, all of them in place."""
    inside = x.clip(-_SINGLE_END, _SINGLE_END)
    square = inside * inside
    y = _polynomial(_SINGLE_P, square)
    y *= inside
    y /= _polynomial(_SINGLE_Q, square)
    return y.clip(-_ONE, _ONE, out=y)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Horner's rule; the highest power comes first."""
    y = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y *= x
        y += np.float32(c)
    return y
