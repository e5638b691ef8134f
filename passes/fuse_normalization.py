"""LayerNormalization and InstanceNormalization from their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.graph import add_initializer, constant
from passes.match import argument, inner, ints, only_user, producer, rank, replace_node, scalar
from passes.product import plus

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Parts:
    """(value - mean) / sqrt(variance + epsilon) * scale + bias; `last` computes the result."""

    value: ir.Value
    axes: list[int]
    epsilon: float
    scale: Array
    bias: Array
    last: ir.Node


class _FuseNormalization(RewriteRule):
    op_type: ClassVar[str]

    def match(self, node: ir.Node) -> bool:
        """The division by the deviation."""
        return is_op(node, "Div") and _parts(node) is not None

    def rewrite(self, node: ir.Node) -> None:
        """One operator in the place of the last one."""
        parts = _parts(node)
        assert parts is not None
        attributes: dict[str, Any] = {"epsilon": parts.epsilon}
        arrays = [parts.scale, parts.bias]
        if self.op_type == "LayerNormalization":
            attributes["axis"] = -len(parts.axes)
        else:
            arrays = [array.reshape(-1) for array in arrays]
        name = parts.last.outputs[0].name
        weights = [
            add_initializer(node.graph, f"{name}_{what}", np.ascontiguousarray(array))
            for what, array in zip(("scale", "bias"), arrays, strict=True)
        ]
        replace_node(parts.last, self.op_type, [parts.value, *weights], attributes)


@dataclass(frozen=True)
class FuseLayerNorm(_FuseNormalization):
    """Normalisation over the last axes.

    Given:  d = x - ReduceMean(x)   y = d / Sqrt(ReduceMean(d^2) + e) * scale + bias
    Result: y = LayerNormalization<axis, epsilon=e>(x, scale, bias)
    """

    name: ClassVar[str] = "fuse-layer-norm"
    op_type: ClassVar[str] = "LayerNormalization"
    since: ClassVar[int] = 17

    def check(self, node: ir.Node) -> str | None:
        """The last axes, with constants for each of their elements."""
        parts = _parts(node)
        assert parts is not None
        count = len(parts.axes)
        if parts.axes != list(range(-count, 0)):
            return "the mean is not taken over the last axes"
        if parts.scale.ndim != count or parts.bias.shape != parts.scale.shape:
            return "scale and bias are not one number for each element of the last axes"
        return None


@dataclass(frozen=True)
class FuseInstanceNorm(_FuseNormalization):
    """Normalisation over all spatial axes.

    Given:  d = x - ReduceMean(x)   y = d / Sqrt(ReduceMean(d^2) + e) * scale + bias
    Result: y = InstanceNormalization<epsilon=e>(x, scale, bias)   scale and bias: [C, 1, 1]
    """

    name: ClassVar[str] = "fuse-instance-norm"
    op_type: ClassVar[str] = "InstanceNormalization"

    def check(self, node: ir.Node) -> str | None:
        """All axes but batch and channel, with constants for each channel."""
        parts = _parts(node)
        assert parts is not None
        size, count = rank(parts.value), len(parts.axes)
        if size is None or size != count + 2 or parts.axes != list(range(-count, 0)):
            return "the mean is not taken over all spatial axes"
        for array in (parts.scale, parts.bias):
            shape = array.shape[1:] if array.ndim == size and array.shape[0] == 1 else array.shape
            if array.size == 1 or shape != (array.size, *(1,) * count):
                return "scale and bias are not one number for each channel"
        return None


def _parts(node: ir.Node) -> _Parts | None:
    """Everything that the division by the deviation stands in; None when a part is missing."""
    centred, root = node.inputs[0], inner(node.inputs[1], node, "Sqrt")
    sum_ = None if root is None else plus(root.inputs[0], root)
    square = None if sum_ is None else inner(sum_[0], sum_[2], "ReduceMean")
    minus = producer(centred, "Sub")
    if centred is None or square is None or sum_ is None or minus is None:
        return None
    mean = inner(minus.inputs[1], minus, "ReduceMean")
    value = minus.inputs[0]
    if mean is None or value is None or mean.inputs[0] is not value:
        return None
    power = inner(square.inputs[0], square, "Pow", "Mul")
    if power is None or not _is_square(power, centred) or centred.is_graph_output():
        return None
    if {user for user, _ in centred.uses()} != {power, node}:
        return None
    axes = _axes(mean)
    if axes is None or axes != _axes(square) or value.dtype != ir.DataType.FLOAT:
        return None
    tail = _tail(node)
    return None if tail is None else _Parts(value, axes, sum_[1], *tail)


def _is_square(node: ir.Node, value: ir.Value) -> bool:
    if is_op(node, "Mul"):
        return node.inputs[0] is value and node.inputs[1] is value
    return node.inputs[0] is value and scalar(node.inputs[1]) == 2


def _axes(mean: ir.Node) -> list[int] | None:
    """Counted from the end, in order; None without keepdims."""
    axes, size = ints(argument(mean, 1)), rank(mean.inputs[0])
    if axes is None or size is None or not mean.attributes.get_int("keepdims", 1):
        return None
    return sorted(a % size - size for a in axes)


def _tail(node: ir.Node) -> tuple[Array, Array, ir.Node] | None:
    """Scale, bias and the node that adds it."""
    times = only_user(node.outputs[0])
    scale = _other(times, "Mul", node.outputs[0])
    if times is None or scale is None:
        return None
    add = only_user(times.outputs[0])
    bias = _other(add, "Add", times.outputs[0])
    return None if add is None or bias is None else (scale, bias, add)


def _other(node: ir.Node | None, op_type: str, value: ir.Value) -> Array | None:
    """The constant on the other side of `value`."""
    if node is None or not is_op(node, op_type) or node.inputs[0] is node.inputs[1]:
        return None
    return constant(node.inputs[1] if node.inputs[0] is value else node.inputs[0])
