"""Activation functions and softmax."""

from __future__ import annotations

import math

import numpy as np

from infer_runtime.arrays import Array, as_type, beside_axis, widened
from infer_runtime.ops.special import erf
from infer_runtime.registry import op


@op("Relu")
def Relu(X: Array) -> Array:
    return np.maximum(X, X.dtype.type(0))


@op("LeakyRelu")
def LeakyRelu(X: Array, *, alpha: float = 0.01) -> Array:
    return np.where(X < 0, X * X.dtype.type(alpha), X)


@op("PRelu", since=7)
def PRelu(X: Array, slope: Array) -> Array:
    return as_type(np.where(X < 0, X * slope, X), X.dtype)


@op("Elu")
def Elu(X: Array, *, alpha: float = 1.0) -> Array:
    return np.where(X < 0, X.dtype.type(alpha) * np.expm1(np.minimum(X, 0)), X)


@op("Selu")
def Selu(
    X: Array, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875
) -> Array:
    return X.dtype.type(gamma) * Elu(X, alpha=alpha)


@op("Celu", since=12)
def Celu(X: Array, *, alpha: float = 1.0) -> Array:
    a = X.dtype.type(alpha)
    return np.maximum(X, 0) + np.minimum(a * np.expm1(X / a), 0)


@op("ThresholdedRelu", since=10)
def ThresholdedRelu(X: Array, *, alpha: float = 1.0) -> Array:
    return np.where(alpha < X, X, X.dtype.type(0))


@op("Shrink", since=9)
def Shrink(X: Array, *, bias: float = 0.0, lambd: float = 0.5) -> Array:
    zero = np.zeros_like(X)
    return as_type(np.where(-lambd > X, X + bias, np.where(lambd < X, X - bias, zero)), X.dtype)


@op("Sigmoid")
def Sigmoid(X: Array) -> Array:
    """1 / (1 + exp(-x)), from the side on which exp cannot overflow."""
    decay = np.exp(-np.abs(X))
    return np.where(X >= 0, X.dtype.type(1), decay) / (1 + decay)


@op("HardSigmoid")
def HardSigmoid(X: Array, *, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return np.clip(X.dtype.type(alpha) * X + X.dtype.type(beta), X.dtype.type(0), X.dtype.type(1))


@op("HardSwish", since=14)
def HardSwish(X: Array) -> Array:
    return X * HardSigmoid(X, alpha=1 / 6, beta=0.5)


@op("Swish", since=24)
def Swish(X: Array, *, alpha: float = 1.0) -> Array:
    return X * Sigmoid(X.dtype.type(alpha) * X)


@op("Softplus")
def Softplus(X: Array) -> Array:
    """log(1 + exp(x)) that does not overflow."""
    return np.maximum(X, 0) + np.log1p(np.exp(-np.abs(X)))


@op("Softsign")
def Softsign(X: Array) -> Array:
    return X / (1 + np.abs(X))


@op("Mish", since=18)
def Mish(X: Array) -> Array:
    return X * np.tanh(Softplus(X))


@op("Gelu", since=20)
def Gelu(X: Array, *, approximate: str = "none") -> Array:
    """x * Phi(x), by the error function or by the tanh approximation."""
    x = widened(X)
    one = x.dtype.type
    if approximate == "tanh":
        inner = np.tanh(one(math.sqrt(2 / math.pi)) * (x + one(0.044715) * x * x * x))
    else:
        inner = erf(x * one(math.sqrt(0.5)))
    return as_type(one(0.5) * x * (1 + inner), X.dtype)


@op("Softmax", since=13)
def Softmax(X: Array, *, axis: int = -1) -> Array:
    x = widened(X)
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    return as_type(weights / weights.sum(axis=axis, keepdims=True), X.dtype)


@op("LogSoftmax", since=13)
def LogSoftmax(X: Array, *, axis: int = -1) -> Array:
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
    return LogSoftmax(_flat(X, axis)).reshape(X.shape)


@op("Hardmax")
def Hardmax_1(X: Array, *, axis: int = 1) -> Array:
    return Hardmax(_flat(X, axis)).reshape(X.shape)


def _flat(X: Array, axis: int) -> Array:
    return X.reshape(math.prod(X.shape[: axis % X.ndim]), -1)
