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
_AT_LIMIT = 1e-3  # steps: what is rounded to a limit by a hair counts as at it


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
            steps = x / scale
            context.save_for_backward(steps, scale)
            context.limits = low, high
            return torch.round(steps).clamp_(low, high).mul_(scale)

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            (gradient,) = gradients
            steps, scale = context.saved_tensors
            low, high = context.limits
            # The identity between the limits, and at them.
            passed = torch.ops.aten.hardtanh_backward(
                gradient.contiguous(), steps, low - _AT_LIMIT, high + _AT_LIMIT
            )
            # By the scale: rounded - steps inside, the limit outside; both through two products.
            rounded = torch.round(steps).clamp_(low, high)
            slope = _dot_to(gradient, rounded, scale) - _dot_to(passed, steps, scale)
            # Section 2.2 there: as large as the gradient of a weight, whatever shares the scale.
            size = (steps.numel() / scale.numel() * max(high, 1)) ** -0.5
            return passed, size * slope, None, None

    return Fake


def _dot_to(left: Any, right: Any, like: Any) -> Any:
    """The sum of the products, for each element of `like`; no product is stored for one alone."""
    if like.numel() == 1:
        torch = import_torch()
        return torch.dot(left.reshape(-1), right.reshape(-1)).reshape(like.shape)
    axes = [a for a in range(left.ndim) if like.shape[a] == 1]
    products = left * right
    return products.sum(axes).reshape(like.shape) if axes else products
