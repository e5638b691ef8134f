"""FakeQuantize: quantise and dequantise in one operator that has gradients.

It exists while a model is trained and never in a file. Forward it computes what QuantizeLinear and
DequantizeLinear compute; backward the rounding counts as the identity, and the scale is learned
(Esser et al. 2020, "Learned step size quantization", section 2).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.registry import op
from quant.train.extra import import_torch

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

TRAIN_DOMAIN = "infertool.train"
FAKE = "FakeQuantize"
NO_AXIS = -1


@op(FAKE, domain=TRAIN_DOMAIN)
def fake_quantize(
    x: Array,
    scale: Array,
    *,
    zero_point: int,
    low: int,
    high: int,
    axis: int = NO_AXIS,
    role: str = "",
) -> Array:
    """(saturate(round(x / scale) + zero_point) - zero_point) * scale, a scale along `axis`."""
    del role  # what the first input is in training
    spread = _along(scale, axis, x.ndim)
    levels = np.clip(np.rint(x / spread), low - zero_point, high - zero_point)
    return np.asarray(levels * spread, x.dtype)


@op(FAKE, domain=TRAIN_DOMAIN, library="torch")
def fake_quantize_torch(
    x: Any,
    scale: Any,
    *,
    zero_point: int,
    low: int,
    high: int,
    axis: int = NO_AXIS,
    role: str = "",
) -> Any:
    """The same on tensors, with gradients to x and scale."""
    del role
    spread = _along(scale, axis, x.ndim)
    return _function().apply(x, spread, low - zero_point, high - zero_point)


def _along(scale: Any, axis: int, rank: int) -> Any:
    if axis == NO_AXIS or not scale.ndim:
        return scale
    shape = [1] * rank
    shape[axis] = -1
    return scale.reshape(shape)


@cache
def _function() -> Any:
    """The function of torch; made when it is first needed, as torch is optional."""
    torch = import_torch()

    class Fake(torch.autograd.Function):  # type: ignore[misc, name-defined, no-untyped-call, unused-ignore]
        @staticmethod
        def forward(context: Any, x: Any, scale: Any, low: int, high: int) -> Any:
            context.save_for_backward(x, scale)
            context.limits = low, high
            return torch.clamp(torch.round(x / scale), low, high) * scale

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            (gradient,) = gradients
            x, scale = context.saved_tensors
            low, high = context.limits
            steps = x / scale
            inside = (steps >= low) & (steps <= high)
            rounded = torch.clamp(torch.round(steps), low, high)
            slope = torch.where(inside, rounded - steps, rounded) * gradient
            # Section 2.2 there: as large as the gradient of a weight, whatever shares the scale.
            size = (x.numel() / scale.numel() * max(high, 1)) ** -0.5
            return gradient * inside, size * _sum_to(slope, scale), None, None

    return Fake


def _sum_to(value: Any, like: Any) -> Any:
    axes = [a for a in range(value.ndim) if like.ndim == 0 or like.shape[a] == 1]
    return value.sum(axes).reshape(like.shape) if axes else value
