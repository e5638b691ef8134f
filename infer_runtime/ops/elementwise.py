"""Arithmetic, comparison, logic and rounding, element by element with broadcasting."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import Array, as_type, check_room, is_integer, is_numpy, namespace, number
from infer_runtime.ops.special import erf
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable

# From opset 7 on, broadcasting is NumPy's; before, it was an attribute.
_BROADCASTS = 7

# ONNX name -> name in the array API standard.
_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
    "Atan": "atan", "Atanh": "atanh", "BitwiseNot": "bitwise_invert", "Ceil": "ceil",
    "Cos": "cos", "Cosh": "cosh", "Exp": "exp", "Floor": "floor", "IsNaN": "isnan", "Log": "log",
    "Neg": "negative", "Not": "logical_not", "Reciprocal": "reciprocal", "Round": "round",
    "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip

_BINARY = {
    "Add": "add", "And": "logical_and", "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor", "Equal": "equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal", "Less": "less", "LessOrEqual": "less_equal",
    "Mul": "multiply", "Or": "logical_or", "Sub": "subtract", "Xor": "logical_xor",
}  # fmt: skip

_VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "add"}

_MANY = 1 << 26  # elements of a broadcast result that are worth a look at the memory

# Where NumPy has a faster function than the standard's.
_NUMPY_NAMES = {"round": "rint"}


def _unary(name: str) -> Callable[[Array], Array]:
    on_numpy = getattr(np, _NUMPY_NAMES.get(name, name))
    return lambda x: on_numpy(x) if is_numpy(x) else getattr(namespace(x), name)(x)


def _binary(name: str) -> Callable[[Array, Array], Array]:
    on_numpy = getattr(np, name)

    def kernel(a: Array, b: Array) -> Array:
        if is_numpy(a) and is_numpy(b):
            if a.size * b.size > _MANY and a.shape != b.shape:
                check_room(np.broadcast_shapes(a.shape, b.shape), a.itemsize)
            return on_numpy(a, b)
        return getattr(namespace(a, b), name)(a, b)

    return kernel


def _variadic(name: str) -> Callable[..., Array]:
    pair = _binary(name)
    return lambda *inputs: reduce(pair, inputs)


for _op, _standard in _UNARY.items():
    op(_op, library="any")(_unary(_standard))
for _op, _standard in _BINARY.items():
    op(_op, since=_BROADCASTS, library="any")(_binary(_standard))
for _op, _standard in _VARIADIC.items():
    op(_op, since=6, library="any")(_variadic(_standard))


@op("Erf", library="any")
def Erf(x: Array) -> Array:
    """The error function."""
    return erf(x)


@op("Mean", since=6, library="any")
def Mean(*inputs: Array) -> Array:
    """The mean of all inputs, with broadcasting."""
    total = reduce(_binary("add"), inputs)
    return as_type(total / number(len(inputs), inputs[0]), inputs[0].dtype)


@op("Div", since=_BROADCASTS, library="any")
def Div(A: Array, B: Array) -> Array:
    """Quotient; integers round towards zero, as in C."""
    xp = namespace(A, B)
    if not is_integer(A.dtype):
        return xp.divide(A, B)
    quotient = xp.floor_divide(A, B)
    inexact = (quotient * B != A) & (B != 0)
    return as_type(quotient + (inexact & ((A < 0) != (B < 0))), A.dtype)


@op("Mod", since=10, library="any")
def Mod(A: Array, B: Array, *, fmod: int = 0) -> Array:
    """Remainder with the sign of the divisor, or of the dividend with `fmod`."""
    xp = namespace(A, B)
    return xp.fmod(A, B) if fmod else xp.remainder(A, B)


@op("Pow", since=_BROADCASTS, library="any")
def Pow(X: Array, Y: Array) -> Array:
    """Power in the type of the base; integer bases take negative exponents through float64."""
    xp = namespace(X, Y)
    if is_integer(X.dtype):
        wide = as_type(X, xp.float64) if (Y < 0).any() else X
        return as_type(xp.pow(wide, Y), X.dtype)
    if is_numpy(Y) and Y.size == 1 and Y.dtype == X.dtype and Y.reshape(-1)[0] == 2:
        square = X * X
        return square if Y.ndim <= X.ndim else square.reshape((1,) * (Y.ndim - X.ndim) + X.shape)
    return as_type(xp.pow(X, Y), X.dtype)


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


@op("Where", since=9, library="any")
def Where(condition: Array, X: Array, Y: Array) -> Array:
    """X where the condition holds, else Y."""
    return namespace(condition, X, Y).where(condition, X, Y)


@op("Clip", since=11, library="any")
def Clip(X: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Lower limit first, so that the upper one wins when they cross."""
    xp = namespace(X)
    if xp is np and low is not None and high is not None and X.ndim:
        return X.clip(low, high)
    if low is not None:
        X = xp.maximum(X, low)
    return X if high is None else xp.minimum(X, high)


@op("Clip", since=6, library="any")
def Clip_6(X: Array, *, min: float | None = None, max: float | None = None) -> Array:  # noqa: A002
    """Before opset 11 the limits are attributes."""
    return Clip(X, _limit(min, X), _limit(max, X))


@op("Identity", library="any")
def Identity(x: Any) -> Any:
    """The input, tensor or sequence."""
    return x


def _limit(value: float | None, like: Array) -> Any:
    return None if value is None else number(value, like)
