"""What operators have in common, so that passes ask for a trait and not for a list of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from passes.base import is_op

if TYPE_CHECKING:
    import onnx_ir as ir

# One input, each element by itself, no attribute that names an axis.
_UNARY = frozenset({
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Cos",
    "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu",
})  # fmt: skip
# Two inputs or more, each element by itself, with broadcasting.
_BROADCASTING = frozenset({
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
    "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
})  # fmt: skip
# The same elements in the same order under another shape.
_RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def is_unary(node: ir.Node | None) -> bool:
    """Does it map each element of its first input by itself? Clip counts with constant bounds."""
    return (
        node is not None
        and is_op(node, node.op_type)
        and (node.op_type in _UNARY or node.op_type == "Clip")
    )


def is_broadcasting(node: ir.Node | None) -> bool:
    """Does it combine elements of inputs that are broadcast against each other?"""
    return node is not None and is_op(node, node.op_type) and node.op_type in _BROADCASTING


def is_reshaping(node: ir.Node | None) -> bool:
    """Does it keep all elements in their order?"""
    return node is not None and is_op(node, node.op_type) and node.op_type in _RESHAPING
