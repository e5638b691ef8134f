"""Operators on each element by itself, and on pairs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call

_UNARY = {
    "LOGISTIC": "Sigmoid", "TANH": "Tanh", "NEG": "Neg", "SQRT": "Sqrt", "LOG": "Log",
    "EXP": "Exp", "SIN": "Sin", "COS": "Cos", "ABS": "Abs", "FLOOR": "Floor", "CEIL": "Ceil",
    "ROUND": "Round", "LOGICAL_NOT": "Not", "SIGN": "Sign", "ELU": "Elu",
}  # fmt: skip
_BINARY = {
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div", "MAXIMUM": "Max", "MINIMUM": "Min",
    "POW": "Pow",
}  # fmt: skip
_COMPARISONS = {
    "EQUAL": "Equal", "GREATER": "Greater", "LESS": "Less", "GREATER_EQUAL": "GreaterOrEqual",
    "LESS_EQUAL": "LessOrEqual", "LOGICAL_AND": "And", "LOGICAL_OR": "Or", "BITWISE_XOR": "Xor",
}  # fmt: skip
_FUSED = ("ADD", "SUB", "MUL", "DIV")


@op(*_UNARY)
def unary(c: Call) -> None:
    """One input, the same operator in ONNX."""
    c.put(c.emit(_UNARY[c.operator.name], c.real(0)))


@op(*_BINARY)
def binary(c: Call) -> None:
    """Two inputs that are broadcast, some with a fused activation."""
    y = c.emit(_BINARY[c.operator.name], c.real(0), c.real(1))
    c.put(c.activated(y) if c.operator.name in _FUSED else y)


@op(*_COMPARISONS)
def comparison(c: Call) -> None:
    """Two inputs that are broadcast, truth values out."""
    if c.operator.name == "BITWISE_XOR" and c.tensor(0).type != "BOOL":
        c.bind(c.emit("BitwiseXor", c.stored(0), c.stored(1)))
        return
    c.bind(c.emit(_COMPARISONS[c.operator.name], c.real(0), c.real(1)))


@op("NOT_EQUAL")
def not_equal(c: Call) -> None:
    """Are they different?"""
    c.bind(c.emit("Not", c.emit("Equal", c.real(0), c.real(1))))


@op("SQUARE")
def square(c: Call) -> None:
    """x x."""
    x = c.real(0)
    c.put(c.emit("Mul", x, x))


@op("SQUARED_DIFFERENCE")
def squared_difference(c: Call) -> None:
    """(x - y)^2."""
    difference = c.emit("Sub", c.real(0), c.real(1))
    c.put(c.emit("Mul", difference, difference))


@op("RSQRT")
def rsqrt(c: Call) -> None:
    """1 / sqrt(x)."""
    c.put(c.emit("Reciprocal", c.emit("Sqrt", c.real(0))))


@op("FLOOR_DIV")
def floor_div(c: Call) -> None:
    """The quotient rounded downwards, also of integers, where ONNX rounds towards zero."""
    c.bind(_floor_div(c, c.stored(0), c.stored(1)))


@op("FLOOR_MOD")
def floor_mod(c: Call) -> None:
    """The remainder with the sign of the divisor."""
    if c.tensor(0).type.startswith("FLOAT"):
        x, y = c.stored(0), c.stored(1)
        c.bind(c.emit("Sub", x, c.emit("Mul", y, c.emit("Floor", c.emit("Div", x, y)))))
    else:
        c.bind(c.emit("Mod", c.stored(0), c.stored(1)))


def _floor_div(c: Call, x: ir.Value, y: ir.Value) -> ir.Value:
    if c.tensor(0).type.startswith("FLOAT"):
        return c.emit("Floor", c.emit("Div", x, y))
    # Exact: x - mod(x, y) is a multiple of y.
    return c.emit("Div", c.emit("Sub", x, c.emit("Mod", x, y)), y)


@op("ATAN2")
def atan2(c: Call) -> None:
    """The angle of the point (x, y), input 0 being y."""
    y, x = c.real(0), c.real(1)
    zero, pi = c.number(0.0, x), c.number(3.141592653589793, x)
    half = c.number(1.5707963267948966, x)
    angle = c.emit("Atan", c.emit("Div", y, x))
    upper = c.emit("GreaterOrEqual", y, zero)
    turned = c.emit("Where", upper, c.emit("Add", angle, pi), c.emit("Sub", angle, pi))
    whole = c.emit("Where", c.emit("Less", x, zero), turned, angle)
    sign = c.emit("Mul", c.emit("Sign", y), half)
    c.put(c.emit("Where", c.emit("Equal", x, zero), sign, whole))


@op("ADD_N")
def add_n(c: Call) -> None:
    """The sum of all inputs."""
    c.put(c.emit("Sum", *(c.real(slot) for slot in range(c.inputs))))


@op("SELECT", "SELECT_V2")
def select(c: Call) -> None:
    """One of two values for each element, by a condition."""
    condition = c.stored(0)
    if c.operator.name == "SELECT" and c.rank(condition) == 1 and c.rank(c.stored(1)) > 1:
        # The old operator chooses whole rows by a vector.
        axes = c.build.ints(*range(1, c.rank(c.stored(1))))
        condition = c.emit("Unsqueeze", condition, axes)
    c.move(lambda a, b: c.emit("Where", condition, a, b), (1, 2))


@op("CAST")
def cast(c: Call) -> None:
    """Another type; of a complex number its real part."""
    x = c.stored(0)
    if c.tensor(0).type == "COMPLEX64":
        x = c.emit("Gather", x, c.build.constant(0), axis=-1)
    c.bind(c.cast(x, c.result().type))
