"""HQQ: scales that leave large errors to a few weights, found without data.

Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models": alternate a
shrinkage of the errors, whose p-norm (p < 1) is small when most of them vanish, and parameters of
least squares. There the parameter is a real zero point; files store zero points as levels, which
would round the gain away, so that here it is the scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from quant.parameters import SMALLEST_SCALE
from quant.tensor import QuantizedTensor, group_parameters, round_to

if TYPE_CHECKING:
    from quant.formats import IntegerFormat
    from quant.granularity import Granularity

    Array = np.ndarray[Any, Any]

NORM = 0.7  # p, as in the reference
START, GROWTH = 10.0, 1.05  # weight of the quadratic penalty in squared steps, and its growth
ROUNDS = 20


def hqq(weight: Array, form: IntegerFormat, granularity: Granularity) -> QuantizedTensor:
    """Quantise a weight; each group has the best scale that was met, in the p-norm."""
    x = weight.astype(np.float64)
    scale, zero = group_parameters(x, form, granularity)
    best, best_loss = scale, np.full(scale.shape, np.inf)
    penalty = START
    for _ in range(ROUNDS):
        found = round_to(x, form, granularity, scale, zero)
        error = x - found.real()
        loss = granularity.reduce(np.add, np.abs(error) ** NORM)
        best = np.where(loss < best_loss, scale, best)
        best_loss = np.minimum(loss, best_loss)
        step = granularity.spread(scale, x)
        target = x - step * _shrink(error / step, penalty)
        centred = found.real() / step
        power = granularity.reduce(np.add, centred * centred)
        fitted = granularity.reduce(np.add, centred * target) / np.maximum(power, 1.0)
        scale = np.where(fitted > SMALLEST_SCALE, fitted, scale).astype(np.float32)
        penalty *= GROWTH
    return round_to(weight, form, granularity, best, zero)


def _shrink(error: Array, penalty: float) -> Array:
    """Generalised soft threshold: the minimiser of |e|^p + penalty / 2 (e - error)^2, nearly."""
    size = np.abs(error)
    threshold = np.maximum(size, 1e-12) ** (NORM - 1) / penalty
    return np.asarray(np.sign(error) * np.maximum(size - threshold, 0.0))
