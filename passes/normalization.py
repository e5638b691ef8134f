"""Parts that several normalisations have: roots of mean squares, axes, scales."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from passes.base import is_op
from passes.graph import constant
from passes.match import argument, dims, inner, ints, producer, rank, scalar
from passes.product import plus

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def root_of_mean(value: ir.Value | None, user: ir.Node) -> tuple[ir.Node, float] | None:
    """Of Sqrt(ReduceMean(...) + epsilon), read by `user` alone: the ReduceMean and epsilon."""
    root = inner(value, user, "Sqrt")
    sum_ = None if root is None else plus(root.inputs[0], root)
    mean = None if sum_ is None else inner(sum_[0], sum_[2], "ReduceMean")
    return None if mean is None or sum_ is None else (mean, sum_[1])


def is_square(node: ir.Node, value: ir.Value) -> bool:
    """Is it value * value or value to the power of 2?"""
    if is_op(node, "Mul"):
        return node.inputs[0] is value and node.inputs[1] is value
    return is_op(node, "Pow") and node.inputs[0] is value and scalar(node.inputs[1]) == 2


def mean_axes(mean: ir.Node) -> list[int] | None:
    """Counted from the end, in order; None without keepdims."""
    axes, size = ints(argument(mean, 1)), rank(mean.inputs[0])
    if axes is None or size is None or not mean.attributes.get_int("keepdims", 1):
        return None
    return sorted(a % size - size for a in axes)


def standardized(node: ir.Node) -> tuple[ir.Value, list[int], float] | None:
    """Of (x - mean) / sqrt(variance + epsilon), all parts its own: x, the axes and epsilon."""
    if not is_op(node, "Div"):
        return None
    centred, found = node.inputs[0], root_of_mean(node.inputs[1], node)
    minus = producer(centred, "Sub")
    if centred is None or found is None or minus is None:
        return None
    variance, epsilon = found
    mean, value = inner(minus.inputs[1], minus, "ReduceMean"), minus.inputs[0]
    if mean is None or value is None or mean.inputs[0] is not value:
        return None
    square = inner(variance.inputs[0], variance, "Pow", "Mul")
    if square is None or not is_square(square, centred) or centred.is_graph_output():
        return None
    axes, readers = mean_axes(mean), {user for user, _ in centred.uses()}
    if axes is None or axes != mean_axes(variance) or readers != {square, node}:
        return None
    return (value, axes, epsilon) if value.dtype == ir.DataType.FLOAT else None


def constant_beside(node: ir.Node | None, op_type: str, value: ir.Value) -> Array | None:
    """The constant on the other side of `value`."""
    if node is None or not is_op(node, op_type) or node.inputs[0] is node.inputs[1]:
        return None
    return constant(node.inputs[1] if node.inputs[0] is value else node.inputs[0])


def last_axes_reason(value: ir.Value, axes: list[int], *arrays: Array) -> str | None:
    """Why these are not the last axes, with one number of each array for each of their elements."""
    count = len(axes)
    if axes != list(range(-count, 0)):
        return "the mean is not taken over the last axes"
    sizes = dims(value)
    if sizes is None or any(array.shape != sizes[-count:] for array in arrays):
        return "scale and bias are not one number for each element of the last axes"
    return None
