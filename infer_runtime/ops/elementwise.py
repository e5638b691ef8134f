"""Arithmetic, comparison, logic and rounding, element by element with broadcasting."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import Array, as_type
from infer_runtime.ops.special import erf
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable

# From opset 7 on, broadcasting is NumPy's; before, it was an attribute.
_BROADCASTS = 7

_UNARY: dict[str, Callable[[Array], Array]] = {
    "Abs": np.abs, "Acos": np.arccos, "Acosh": np.arccosh, "Asin": np.arcsin, "Asinh": np.arcsinh,
    "Atan": np.arctan, "Atanh": np.arctanh, "BitwiseNot": np.invert, "Ceil": np.ceil,
    "Cos": np.cos, "Cosh": np.cosh, "Erf": erf, "Exp": np.exp, "Floor": np.floor,
    "IsNaN": np.isnan, "Log": np.log, "Neg": np.negative, "Not": np.logical_not,
    "Reciprocal": np.reciprocal, "Round": np.rint, "Sign": np.sign, "Sin": np.sin,
    "Sinh": np.sinh, "Sqrt": np.sqrt, "Tan": np.tan, "Tanh": np.tanh,
}  # fmt: skip

_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add, "And": np.logical_and, "BitwiseAnd": np.bitwise_and, "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor, "Equal": np.equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal,
    "Mul": np.multiply, "Or": np.logical_or, "Sub": np.subtract, "Xor": np.logical_xor,
}  # fmt: skip

_VARIADIC: dict[str, Callable[[Array, Array], Array]] = {
    "Max": np.maximum, "Min": np.minimum, "Sum": np.add,
}  # fmt: skip


def _unary(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda x: function(x)


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, b: function(a, b)


def _variadic(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda *inputs: reduce(function, inputs)


for _name, _function in _UNARY.items():
    op(_name)(_unary(_function))
for _name, _pair in _BINARY.items():
    op(_name, since=_BROADCASTS)(_binary(_pair))
for _name, _pair in _VARIADIC.items():
    op(_name, since=6)(_variadic(_pair))


@op("Mean", since=6)
def Mean(*inputs: Array) -> Array:
    """The mean of all inputs, with broadcasting."""
    return as_type(reduce(np.add, inputs) / np.array(len(inputs), inputs[0].dtype), inputs[0].dtype)


@op("Div", since=_BROADCASTS)
def Div(A: Array, B: Array) -> Array:
    """Quotient; integers round towards zero, as in C."""
    if not np.issubdtype(A.dtype, np.integer):
        return np.divide(A, B)
    quotient = np.floor_divide(A, B)
    if np.issubdtype(A.dtype, np.unsignedinteger):
        return quotient
    inexact = (quotient * B != A) & (B != 0)
    return as_type(quotient + (inexact & ((A < 0) != (B < 0))), A.dtype)


@op("Mod", since=10)
def Mod(A: Array, B: Array, *, fmod: int = 0) -> Array:
    """Remainder with the sign of the divisor, or of the dividend with `fmod`."""
    return np.fmod(A, B) if fmod else np.mod(A, B)


@op("Pow", since=_BROADCASTS)
def Pow(X: Array, Y: Array) -> Array:
    """Power in the type of the base; integer bases take negative exponents through float64."""
    if np.issubdtype(X.dtype, np.integer) and np.issubdtype(Y.dtype, np.signedinteger):
        return as_type(np.power(X.astype(np.float64), Y) if np.any(Y < 0) else X**Y, X.dtype)
    return as_type(np.power(X, Y), X.dtype)


@op("BitShift", since=11)
def BitShift(X: Array, Y: Array, *, direction: str) -> Array:
    """X shifted by Y bits to the LEFT or RIGHT."""
    return np.left_shift(X, Y) if direction == "LEFT" else np.right_shift(X, Y)


@op("IsInf", since=10)
def IsInf(X: Array, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """Is an element infinite, counting only the wanted signs?"""
    if detect_negative and detect_positive:
        return np.isinf(X)
    if detect_negative:
        return np.isneginf(X)
    return np.isposinf(X) if detect_positive else np.zeros(X.shape, bool)


@op("Where", since=9)
def Where(condition: Array, X: Array, Y: Array) -> Array:
    """X where the condition holds, else Y."""
    return np.where(condition, X, Y)


@op("Clip", since=11)
def Clip(X: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Lower limit first, so that the upper one wins when they cross."""
    if low is not None:
        X = np.maximum(X, low)
    return X if high is None else np.minimum(X, high)


@op("Clip", since=6)
def Clip_6(X: Array, *, min: float | None = None, max: float | None = None) -> Array:  # noqa: A002
    """Before opset 11 the limits are attributes."""
    return Clip(X, _limit(min, X), _limit(max, X))


@op("Identity")
def Identity(x: Any) -> Any:
    """The input, tensor or sequence."""
    return x


def _limit(value: float | None, like: Array) -> Array | None:
    return None if value is None else np.asarray(value, like.dtype)
