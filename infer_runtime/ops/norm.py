"""Normalisation layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.arrays import Array, as_type, beside_axis, is_numpy, namespace, number, widened
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence


@op("BatchNormalization", since=14, library="any")
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
    x, xp = widened(X), namespace(X)
    now_mean, now_var = xp.mean(x, axis=axes), xp.var(x, axis=axes)
    y = _normalise_channels(X, scale, B, now_mean, now_var, epsilon)
    running = (
        as_type(old * momentum + now * (1 - momentum), old.dtype)
        for old, now in ((mean, now_mean), (var, now_var))
    )
    return y, *running  # type: ignore[return-value]


@op("BatchNormalization", since=7, library="any")
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
        y = (X - mean) / namespace(X).sqrt(var + number(epsilon, X)) * scale + B
    return y, mean, var, mean, var


@op("BatchNormalization", library="any")
def BatchNormalization_1(
    X: Array,
    scale: Array,
    B: Array,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    is_test: int = 0,
    consumed_inputs: Sequence[int] = (),
) -> tuple[Array, ...]:
    """Before opset 7 the mode is an attribute; training writes through its inputs: refused."""
    del consumed_inputs
    if not is_test:
        raise ValueError("the training mode of BatchNormalization before opset 7 has no kernel")
    return BatchNormalization_7(
        X, scale, B, mean, var, epsilon=epsilon, momentum=momentum, spatial=spatial
    )


def _normalise_channels(
    X: Array, scale: Array, B: Array, mean: Array, var: Array, epsilon: float
) -> Array:
    return scaled_channels(X, *channel_affine(scale, B, mean, var, epsilon))


def channel_affine(
    scale: Array, B: Array, mean: Array, var: Array, epsilon: float
) -> tuple[Array, Array]:
    """Factor and shift of each channel, [C] each, that normalise by these statistics."""
    s, b, m, v = (widened(p) for p in (scale, B, mean, var))
    factor = s / namespace(v).sqrt(v + number(epsilon, v))
    return factor, b - m * factor


def scaled_channels(X: Array, factor: Array, shift: Array) -> Array:
    """X [N, C, ...] times a factor and plus a shift for each channel."""
    y = widened(X) * beside_axis(factor, 1, X.ndim)
    return as_type(_added(y, beside_axis(shift, 1, X.ndim)), X.dtype)


def _added(y: Array, other: Array) -> Array:
    """The sum; in place on NumPy, where `y` belongs to the caller."""
    if is_numpy(y) and y.ndim:
        y += other
        return y
    return y + other


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """(x - mean) / deviation, the mean and the inverse deviation."""
    xp = namespace(x)
    mean = xp.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    variance = xp.mean(xp.square(centred), axis=axes, keepdims=True)
    inverse = 1 / xp.sqrt(variance + number(epsilon, x))
    return centred * inverse, mean, inverse


@op("InstanceNormalization", since=6, library="any")
def InstanceNormalization(X: Array, scale: Array, B: Array, *, epsilon: float = 1e-5) -> Array:
    """Normalise each channel of each sample."""
    y, _, _ = _standardised(widened(X), tuple(range(2, X.ndim)), epsilon)
    y = y * beside_axis(widened(scale), 1, X.ndim)
    return as_type(_added(y, beside_axis(widened(B), 1, X.ndim)), X.dtype)


@op("LayerNormalization", since=17, library="any")
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
        y = _added(y, widened(B))
    return as_type(y, X.dtype), mean, inverse


@op("RMSNormalization", since=23, library="any")
def RMSNormalization(
    X: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """Divide by the root mean square of the axes from `axis` on."""
    del stash_type
    x = widened(X)
    axes = tuple(range(axis % X.ndim, X.ndim))
    xp = namespace(x)
    power = xp.mean(xp.square(x), axis=axes, keepdims=True)
    return as_type(x / xp.sqrt(power + number(epsilon, x)) * widened(scale), scale.dtype)


@op("GroupNormalization", since=21, library="any")
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


@op("GroupNormalization", since=18, library="any")
def GroupNormalization_18(
    X: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5
) -> Array:
    """Before opset 21 scale and bias are per group."""
    times = X.shape[1] // num_groups
    xp = namespace(scale, bias)
    scale, bias = xp.repeat(scale, times), xp.repeat(bias, times)
    return GroupNormalization(X, scale, bias, num_groups=num_groups, epsilon=epsilon)


@op("LRN", library="any")
def LRN(
    X: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Array:
    """Divide by the power of the neighbouring channels (AlexNet)."""
    x = widened(X)
    xp, square = namespace(x), x * x
    before, after = (size - 1) // 2, size // 2
    near = [square[:, max(0, c - before) : c + after + 1] for c in range(x.shape[1])]
    total = xp.stack([xp.sum(channels, axis=1) for channels in near], axis=1)
    return as_type(x / (bias + alpha / size * total) ** beta, X.dtype)


@op("LpNormalization", library="any")
def LpNormalization(X: Array, *, axis: int = -1, p: int = 2) -> Array:
    """Divide by the L1 or L2 norm along the axis; a zero vector stays zero."""
    x = widened(X)
    xp = namespace(x)
    if p == 1:
        norm = xp.sum(xp.abs(x), axis=axis, keepdims=True)
    else:
        norm = xp.sqrt(xp.sum(xp.square(x), axis=axis, keepdims=True))
    return as_type(xp.where(norm == 0, x, x / norm), X.dtype)


@op("MeanVarianceNormalization", since=9, library="any")
def MeanVarianceNormalization(X: Array, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """Subtract the mean and divide by the deviation over the axes."""
    x = widened(X)
    xp = namespace(x)
    centred = x - xp.mean(x, axis=tuple(axes), keepdims=True)
    deviation = xp.sqrt(xp.mean(xp.square(centred), axis=tuple(axes), keepdims=True))
    return as_type(centred / (deviation + number(1e-9, x)), X.dtype)
