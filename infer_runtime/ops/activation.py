"""Activation functions and softmax."""

from __future__ import annotations

import math

import numpy as np

from infer_runtime.arrays import Array, as_type, beside_axis, number, widened
from infer_runtime.ops.special import erf
from infer_runtime.registry import op


@op("Relu")
def Relu(X: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(X, number(0, X))


@op("LeakyRelu")
def LeakyRelu(X: Array, *, alpha: float = 0.01) -> Array:
    """x, or alpha * x below 0."""
    return np.where(X < 0, X * number(alpha, X), X)


@op("PRelu", since=7)
def PRelu(X: Array, slope: Array) -> Array:
    """x, or slope * x below 0."""
    return as_type(np.where(X < 0, X * slope, X), X.dtype)


@op("Elu")
def Elu(X: Array, *, alpha: float = 1.0) -> Array:
    """x, or alpha * (exp(x) - 1) below 0."""
    return np.where(X < 0, number(alpha, X) * np.expm1(np.minimum(X, 0)), X)


@op("Selu")
def Selu(
    X: Array, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Array:
    """gamma * Elu(x)."""
    return number(gamma, X) * Elu(X, alpha=alpha)


@op("Celu", since=12)
def Celu(X: Array, *, alpha: float = 1.0) -> Array:
    """x, or alpha * (exp(x / alpha) - 1) below 0."""
    a = number(alpha, X)
    y: Array = np.maximum(X, 0) + np.minimum(a * np.expm1(X / a), 0)
    return y


@op("ThresholdedRelu", since=10)
def ThresholdedRelu(X: Array, *, alpha: float = 1.0) -> Array:
    """x above alpha, else 0."""
    return np.where(alpha < X, X, number(0, X))


@op("Shrink", since=9)
def Shrink(X: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    """x moved towards 0 by the bias outside of [-lambd, lambd], 0 inside."""
    zero = np.zeros_like(X)
    return as_type(np.where(-lambd > X, X + bias, np.where(lambd < X, X - bias, zero)), X.dtype)


@op("Sigmoid")
def Sigmoid(X: Array) -> Array:
    """1 / (1 + exp(-x)), from the side on which exp cannot overflow."""
    decay = np.exp(-np.abs(X))
    y: Array = np.where(X >= 0, number(1, X), decay) / (1 + decay)
    return y


@op("HardSigmoid")
def HardSigmoid(X: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    """alpha * x + beta within [0, 1]."""
    y: Array = np.maximum(number(alpha, X) * X + number(beta, X), 0)
    return np.minimum(y, number(1, X))


@op("HardSwish", since=14)
def HardSwish(X: Array) -> Array:
    """x * HardSigmoid(x) with alpha 1/6."""
    return X * HardSigmoid(X, alpha=1 / 6, beta=0.5)


@op("Swish", since=24)
def Swish(X: Array, *, alpha: float = 1.0) -> Array:
    """x * Sigmoid(alpha * x)."""
    return X * Sigmoid(number(alpha, X) * X)


@op("Softplus")
def Softplus(X: Array) -> Array:
    """log(1 + exp(x)) that does not overflow."""
    return np.maximum(X, 0) + np.log1p(np.exp(-np.abs(X)))


@op("Softsign")
def Softsign(X: Array) -> Array:
    """x / (1 + |x|)."""
    y: Array = X / (1 + np.abs(X))
    return y


@op("Mish", since=18)
def Mish(X: Array) -> Array:
    """x * tanh(Softplus(x))."""
    return X * np.tanh(Softplus(X))


@op("Gelu", since=20)
def Gelu(X: Array, *, approximate: str = "none") -> Array:
    """x * Phi(x), by the error function or by the tanh approximation."""
    x = widened(X)
    if approximate == "tanh":
        inner = np.tanh(number(math.sqrt(2 / math.pi), x) * (x + number(0.044715, x) * x * x * x))
    else:
        inner = erf(x * number(math.sqrt(0.5), x))
    return as_type(number(0.5, x) * x * (1 + inner), X.dtype)


@op("Softmax", since=13)
def Softmax(X: Array, *, axis: int = -1) -> Array:
    """exp(x) over its sum along the axis; the maximum is taken off first."""
    x = widened(X)
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    return as_type(weights / weights.sum(axis=axis, keepdims=True), X.dtype)


@op("LogSoftmax", since=13)
def LogSoftmax(X: Array, *, axis: int = -1) -> Array:
    """log(Softmax(x)), computed without the division."""
    x = widened(X)
    x = x - x.max(axis=axis, keepdims=True)
    return as_type(x - np.log(np.exp(x).sum(axis=axis, keepdims=True)), X.dtype)


@op("Hardmax", since=13)
def Hardmax(X: Array, *, axis: int = -1) -> Array:
    """One at the first maximum along the axis, zero elsewhere."""
    first = np.expand_dims(X.argmax(axis=axis), axis)
    return as_type(first == beside_axis(np.arange(X.shape[axis]), axis, X.ndim), X.dtype)


@op("Softmax")
def Softmax_1(X: Array, *, axis: int = 1) -> Array:
    """Before opset 13 all axes from `axis` on are one."""
    return Softmax(_flat(X, axis)).reshape(X.shape)


@op("LogSoftmax")
def LogSoftmax_1(X: Array, *, axis: int = 1) -> Array:
    """Before opset 13 all axes from `axis` on are one."""
    return LogSoftmax(_flat(X, axis)).reshape(X.shape)


@op("Hardmax")
def Hardmax_1(X: Array, *, axis: int = 1) -> Array:
    """Before opset 13 all axes from `axis` on are one."""
    return Hardmax(_flat(X, axis)).reshape(X.shape)


def _flat(X: Array, axis: int) -> Array:
    return X.reshape(math.prod(X.shape[: axis % X.ndim]), -1)
