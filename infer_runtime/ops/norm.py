"""Normalisation layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.arrays import Array, as_type, beside_axis, number, widened
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence


@op("BatchNormalization", since=14)
def BatchNormalization(
    X: Array,
    scale: Array,
    B: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Array | tuple[Array, Array, Array]:
    """Normalise each channel by stored statistics, or by those of the batch in training mode."""
    if not training_mode:
        return _normalise_channels(X, scale, B, mean, var, epsilon)
    axes = tuple(a for a in range(X.ndim) if a != 1)
    now_mean, now_var = widened(X).mean(axis=axes), widened(X).var(axis=axes)
    y = _normalise_channels(X, scale, B, now_mean, now_var, epsilon)
    running = (
        as_type(old * momentum + now * (1 - momentum), old.dtype)
        for old, now in ((mean, now_mean), (var, now_var))
    )
    return y, *running  # type: ignore[return-value]


@op("BatchNormalization", since=7)
def BatchNormalization_7(
    X: Array,
    scale: Array,
    B: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
) -> tuple[Array, ...]:
    """Inference, also where further outputs are declared (exporters leave them unused).

    Those are the statistics as they are. Without `spatial` every position has its own.
    """
    del momentum
    if spatial:
        y = _normalise_channels(X, scale, B, mean, var, epsilon)
    else:
        y = (X - mean) / np.sqrt(var + number(epsilon, X)) * scale + B
    return y, mean, var, mean, var


def _normalise_channels(
    X: Array, scale: Array, B: Array, mean: Array, var: Array, epsilon: float
) -> Array:
    s, b, m, v = (widened(p) for p in (scale, B, mean, var))
    factor = s / np.sqrt(v + number(epsilon, v))
    y = widened(X) * beside_axis(factor, 1, X.ndim) + beside_axis(b - m * factor, 1, X.ndim)
    return as_type(y, X.dtype)


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """(x - mean) / deviation, the mean and the inverse deviation."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(variance + number(epsilon, x))
    return centred * inverse, mean, inverse


@op("InstanceNormalization", since=6)
def InstanceNormalization(X: Array, scale: Array, B: Array, *, epsilon: float = 1e-5) -> Array:
    """Normalise each channel of each sample."""
    y, _, _ = _standardised(widened(X), tuple(range(2, X.ndim)), epsilon)
    y = y * beside_axis(widened(scale), 1, X.ndim) + beside_axis(widened(B), 1, X.ndim)
    return as_type(y, X.dtype)


@op("LayerNormalization", since=17)
def LayerNormalization(
    X: Array,
    scale: Array,
    B: Array | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Array, Array, Array]:
    """Normalise the axes from `axis` on; also the mean and the inverse deviation."""
    del stash_type  # narrow floats are always computed in float32
    axes = tuple(range(axis % X.ndim, X.ndim))
    y, mean, inverse = _standardised(widened(X), axes, epsilon)
    y = y * widened(scale)
    if B is not None:
        y = y + widened(B)
    return as_type(y, X.dtype), mean, inverse


@op("RMSNormalization", since=23)
def RMSNormalization(
    X: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """Divide by the root mean square of the axes from `axis` on."""
    del stash_type
    x = widened(X)
    axes = tuple(range(axis % X.ndim, X.ndim))
    power = np.square(x).mean(axis=axes, keepdims=True)
    return as_type(x / np.sqrt(power + number(epsilon, x)) * widened(scale), scale.dtype)


@op("GroupNormalization", since=21)
def GroupNormalization(
    X: Array,
    scale: Array,
    bias: Array,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Array:
    """Normalise groups of channels; scale and bias are per channel."""
    del stash_type
    grouped = widened(X).reshape(X.shape[0], num_groups, -1)
    y = _standardised(grouped, (2,), epsilon)[0].reshape(X.shape)
    y = y * beside_axis(widened(scale), 1, X.ndim) + beside_axis(widened(bias), 1, X.ndim)
    return as_type(y, X.dtype)


@op("GroupNormalization", since=18)
def GroupNormalization_18(
    X: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5
) -> Array:
    """Before opset 21 scale and bias are per group."""
    times = X.shape[1] // num_groups
    scale, bias = np.repeat(scale, times), np.repeat(bias, times)
    return GroupNormalization(X, scale, bias, num_groups=num_groups, epsilon=epsilon)


@op("LRN")
def LRN(
    X: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Array:
    """Divide by the power of the neighbouring channels (AlexNet)."""
    x = widened(X)
    square, total = np.square(x), np.zeros_like(x)
    before, after = (size - 1) // 2, size // 2
    for c in range(x.shape[1]):
        near = square[:, max(0, c - before) : c + after + 1]
        total[:, c] = near.sum(axis=1)
    return as_type(x / (bias + alpha / size * total) ** beta, X.dtype)


@op("LpNormalization")
def LpNormalization(X: Array, *, axis: int = -1, p: int = 2) -> Array:
    """Divide by the L1 or L2 norm along the axis; a zero vector stays zero."""
    x = widened(X)
    if p == 1:
        norm = np.abs(x).sum(axis=axis, keepdims=True)
    else:
        norm = np.sqrt(np.square(x).sum(axis=axis, keepdims=True))
    return as_type(np.where(norm == 0, x, x / norm), X.dtype)


@op("MeanVarianceNormalization", since=9)
def MeanVarianceNormalization(X: Array, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """Subtract the mean and divide by the deviation over the axes."""
    x = widened(X)
    centred = x - x.mean(axis=tuple(axes), keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=tuple(axes), keepdims=True))
    return as_type(centred / (deviation + number(1e-9, x)), X.dtype)
