"""Operators of one bit that have gradients. They exist while a model is trained, never in a file.

Forward they compute what the file will; backward they count as something smooth.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.registry import op
from quant.train.extra import import_torch
from quant.train.fake import TRAIN_DOMAIN

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BITS, SIGNED, STORED, AROUND = "Bits", "Signed", "Stored", "Around"
TERNARY_SHARE = 0.7  # of the mean magnitude: below it a weight is 0 (Li et al. 2016, eq. 6)


def signs(w: Any, *, ternary: int) -> Any:
    """-1 or 1 for each weight [M, ...], 1 for 0; `ternary` also has 0, for small ones of a row."""
    found = 2.0 * (w >= 0) - 1.0
    if not ternary:
        return found
    size = _double(abs(w)).reshape(len(w), -1)
    small = size <= TERNARY_SHARE * size.mean(1).reshape(-1, 1)
    return found * (1.0 - 1.0 * small.reshape(w.shape))


def _double(x: Any) -> Any:
    """So wide that NumPy and torch find the same mean, to less than a weight can tell."""
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x.double()


@op(SIGNED, domain=TRAIN_DOMAIN)
def signed(w: Array, scale: Array, share: Array, *, ternary: int = 0) -> Array:
    """signs(w) * scale; before `share` has become 1, w itself has the rest of it."""
    return np.asarray(share * (signs(w, ternary=ternary) * scale) + (1 - share) * w, w.dtype)


@op(SIGNED, domain=TRAIN_DOMAIN, library="torch")
def signed_torch(w: Any, scale: Any, share: Any, *, ternary: int = 0) -> Any:
    """The same on tensors; the gradient of w passes unchanged (Rastegari et al. 2016, section 3).

    Always by 1, so that what the optimiser remembers of it stays right while `share` grows.
    """
    hard = signs(w.detach(), ternary=ternary).to(w.dtype) * scale
    # Exactly `hard` where the share is 1: a difference of equal numbers is 0.
    return share * hard + (1 - share) * w.detach() + (w - w.detach())


@op(STORED, domain=TRAIN_DOMAIN)
def stored(x: Array, *, role: str, half: int = 1) -> Array:
    """What a file keeps of a learned number: half precision, or all of it."""
    del role
    return np.asarray(x.astype(np.float16), x.dtype) if half else x


@op(STORED, domain=TRAIN_DOMAIN, library="torch")
def stored_torch(x: Any, *, role: str, half: int = 1) -> Any:
    """The same on tensors; the rounding counts as the identity."""
    del role
    return x.half().to(x.dtype) if half else x


@op(BITS, domain=TRAIN_DOMAIN)
def bits(x: Array, shift: Array, width: Array, share: Array, *, axis: int) -> Array:
    """1 where x >= shift * width, else -1; shift and width along `axis`.

    Before `share` has become 1, the distance in widths has the rest of it.
    """
    spread, middle = _along(width, axis, x.ndim), _along(shift, axis, x.ndim)
    hard = np.where(x >= middle * spread, np.float32(1), np.float32(-1))
    return (
        hard
        if share == 1
        else np.asarray(share * hard + (1 - share) * (x / spread - middle), x.dtype)
    )


@op(BITS, domain=TRAIN_DOMAIN, library="torch")
def bits_torch(x: Any, shift: Any, width: Any, share: Any, *, axis: int) -> Any:
    """The same on tensors; the slope of a bit is that of a line, a width to each side.

    The clipped identity of Rastegari et al. 2016, section 3.1.
    """
    spread = _along(width, axis, x.ndim)
    return _function().apply(x, _along(shift, axis, x.ndim), spread, float(share))


@op(AROUND, domain=TRAIN_DOMAIN)
def around(y: Array, x: Array, gain: Array, share: Array) -> Array:
    """y + x * gain, as much of it as `share` says: what goes round a layer."""
    return np.asarray(y + x * (gain * share), y.dtype)


@op(AROUND, domain=TRAIN_DOMAIN, library="torch")
def around_torch(y: Any, x: Any, gain: Any, share: Any) -> Any:
    """The same on tensors, in one walk over the memory."""
    return import_torch().addcmul(y, x, gain * share)


def _along(value: Any, axis: int, rank: int) -> Any:
    shape = [1] * rank
    shape[axis] = -1
    return value.reshape(shape)


@cache
def _function() -> Any:
    """The function of torch; made when it is first needed, as torch is optional."""
    torch = import_torch()

    class Bits(torch.autograd.Function):  # type: ignore[misc, name-defined, no-untyped-call, unused-ignore]
        @staticmethod
        def forward(context: Any, x: Any, shift: Any, width: Any, share: float) -> Any:
            context.save_for_backward(x, shift, width)
            context.share = share
            hard = (x >= shift * width).to(x.dtype).mul_(2).sub_(1)
            if share == 1:
                return hard
            return hard.mul_(share).add_(torch.addcmul(-shift, x, 1 / width), alpha=1 - share)

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            (gradient,) = gradients
            x, shift, width = context.saved_tensors
            distance = torch.addcmul(-shift, x, 1 / width)
            slope = torch.ops.aten.hardtanh_backward(gradient, distance, -1.0, 1.0)
            if context.share != 1:
                slope = torch.lerp(gradient, slope, context.share)
            others = [a for a in range(x.ndim) if shift.shape[a] == 1]
            sums = slope.sum(others).reshape(shift.shape)
            return slope.mul_(1 / width), -sums, None, None

    return Bits
