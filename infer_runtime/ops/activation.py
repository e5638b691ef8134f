"""Activation functions and softmax."""

from __future__ import annotations

import math

import numpy as np

from infer_runtime.arrays import (
    Array,
    as_type,
    beside_axis,
    integer_like,
    is_numpy,
    namespace,
    number,
    widened,
)
from infer_runtime.ops.special import erf
from infer_runtime.registry import op

_ZERO, _ONE, _INFINITE = np.float32(0), np.float32(1), np.float32(np.inf)


@op("Relu", library="any")
def Relu(X: Array) -> Array:
    """max(x, 0)."""
    # Clipping to an infinite limit is the fastest maximum that NumPy has.
    if is_numpy(X) and X.dtype == np.float32 and X.ndim:
        return X.clip(_ZERO, _INFINITE)
    return namespace(X).maximum(X, number(0, X))


@op("LeakyRelu", library="any")
def LeakyRelu(X: Array, *, alpha: float = 0.01) -> Array:
    """x, or alpha * x below 0."""
    return namespace(X).where(X < 0, X * number(alpha, X), X)


@op("PRelu", since=7, library="any")
def PRelu(X: Array, slope: Array) -> Array:
    """x, or slope * x below 0."""
    return as_type(namespace(X, slope).where(X < 0, X * slope, X), X.dtype)


@op("Elu", library="any")
def Elu(X: Array, *, alpha: float = 1.0) -> Array:
    """x, or alpha * (exp(x) - 1) below 0."""
    xp = namespace(X)
    return xp.where(X < 0, number(alpha, X) * xp.expm1(xp.minimum(X, number(0, X))), X)


@op("Selu", library="any")
def Selu(
    X: Array, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Array:
    """gamma * Elu(x)."""
    return number(gamma, X) * Elu(X, alpha=alpha)


@op("Celu", since=12, library="any")
def Celu(X: Array, *, alpha: float = 1.0) -> Array:
    """x, or alpha * (exp(x / alpha) - 1) below 0."""
    xp, a, zero = namespace(X), number(alpha, X), number(0, X)
    return xp.maximum(X, zero) + xp.minimum(a * xp.expm1(X / a), zero)


@op("ThresholdedRelu", since=10, library="any")
def ThresholdedRelu(X: Array, *, alpha: float = 1.0) -> Array:
    """x above alpha, else 0."""
    return namespace(X).where(alpha < X, X, number(0, X))


@op("Shrink", since=9, library="any")
def Shrink(X: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """x moved towards 0 by the bias outside of [-lambd, lambd], 0 inside."""
    xp = namespace(X)
    inside = xp.where(lambd < X, X - bias, number(0, X))
    return as_type(xp.where(-lambd > X, X + bias, inside), X.dtype)


@op("Sigmoid", library="any")
def Sigmoid(X: Array) -> Array:
    """1 / (1 + exp(-x)), from the side on which exp cannot overflow."""
    if is_numpy(X) and X.dtype == np.float32:
        # Below -103 exp(-x) is infinite and the quotient 0, which is right.
        y: Array = np.exp(-X)
        y = y + _ONE
        return np.reciprocal(y, out=y) if y.ndim else np.reciprocal(y)
    xp = namespace(X)
    decay = xp.exp(-xp.abs(X))
    return xp.where(X >= 0, number(1, X), decay) / (1 + decay)


@op("HardSigmoid", library="any")
def HardSigmoid(X: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """alpha * x + beta within [0, 1]."""
    xp = namespace(X)
    y = number(alpha, X) * X + number(beta, X)
    if xp is np and y.ndim:
        return y.clip(number(0, X), number(1, X))
    return xp.minimum(xp.maximum(y, number(0, X)), number(1, X))


@op("HardSwish", since=14, library="any")
def HardSwish(X: Array) -> Array:
    """x * HardSigmoid(x) with alpha 1/6."""
    return X * HardSigmoid(X, alpha=1 / 6, beta=0.5)


@op("Swish", since=24, library="any")
def Swish(X: Array, *, alpha: float = 1.0) -> Array:
    """x * Sigmoid(alpha * x)."""
    return X * Sigmoid(number(alpha, X) * X)


@op("Softplus", library="any")
def Softplus(X: Array) -> Array:
    """log(1 + exp(x)) that does not overflow."""
    xp = namespace(X)
    return xp.maximum(X, number(0, X)) + xp.log1p(xp.exp(-xp.abs(X)))


@op("Softsign", library="any")
def Softsign(X: Array) -> Array:
    """x / (1 + |x|)."""
    return X / (1 + namespace(X).abs(X))


@op("Mish", since=18, library="any")
def Mish(X: Array) -> Array:
    """x * tanh(Softplus(x))."""
    return X * namespace(X).tanh(Softplus(X))


@op("Gelu", since=20, library="any")
def Gelu(X: Array, *, approximate: str = "none") -> Array:
    """x * Phi(x), by the error function or by the tanh approximation."""
    x = widened(X)
    if approximate == "tanh":
        inner = namespace(x).tanh(
            number(math.sqrt(2 / math.pi), x) * (x + number(0.044715, x) * x * x * x)
        )
    else:
        inner = erf(x * number(math.sqrt(0.5), x))
    return as_type(number(0.5, x) * x * (1 + inner), X.dtype)


@op("Softmax", since=13, library="any")
def Softmax(X: Array, *, axis: int = -1) -> Array:
    """exp(x) over its sum along the axis; the maximum is taken off first."""
    x = widened(X)
    xp = namespace(x)
    weights = x - xp.max(x, axis=axis, keepdims=True)
    if xp is np and weights.ndim:
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=axis, keepdims=True)
        return as_type(weights, X.dtype)
    weights = xp.exp(weights)
    return as_type(weights / xp.sum(weights, axis=axis, keepdims=True), X.dtype)


@op("LogSoftmax", since=13, library="any")
def LogSoftmax(X: Array, *, axis: int = -1) -> Array:
    """log(Softmax(x)), computed without the division."""
    x = widened(X)
    xp = namespace(x)
    x = x - xp.max(x, axis=axis, keepdims=True)
    return as_type(x - xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=True)), X.dtype)


@op("Hardmax", since=13, library="any")
def Hardmax(X: Array, *, axis: int = -1) -> Array:
    """One at the first maximum along the axis, zero elsewhere."""
    xp = namespace(X)
    first = xp.expand_dims(xp.argmax(X, axis=axis), axis=axis)
    places = integer_like(range(X.shape[axis]), X)
    return as_type(first == beside_axis(places, axis, X.ndim), X.dtype)


@op("Softmax", library="any")
def Softmax_1(X: Array, *, axis: int = 1) -> Array:
    """Before opset 13 all axes from `axis` on are one."""
    return Softmax(_flat(X, axis)).reshape(X.shape)


@op("LogSoftmax", library="any")
def LogSoftmax_1(X: Array, *, axis: int = 1) -> Array:
    """Before opset 13 all axes from `axis` on are one."""
    return LogSoftmax(_flat(X, axis)).reshape(X.shape)


@op("Hardmax", library="any")
def Hardmax_1(X: Array, *, axis: int = 1) -> Array:
    """Before opset 13 all axes from `axis` on are one."""
    return Hardmax(_flat(X, axis)).reshape(X.shape)


def _flat(X: Array, axis: int) -> Array:
    return X.reshape(math.prod(X.shape[: axis % X.ndim]), -1)
