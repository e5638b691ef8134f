"""Scale, shift and BatchNormalization into the linear node after them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from passes.base import RewriteRule, is_op
from passes.graph import MAX_GROWTH_BYTES, constant, is_constant, replace_constant
from passes.match import only_user, rank, remove_with_unused
from passes.weights import set_bias

if TYPE_CHECKING:
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

LINEAR = ("Conv", "Gemm", "MatMul")
ARITHMETIC = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True)
class FoldAffineBefore(RewriteRule):
    """What is done to each input channel belongs to the weights.

    Given:  a = x * s | x + t | BatchNormalization(x)   y = Conv | Gemm | MatMul (a, W, b)
    Result: y = Conv(x, W * s, b + W t)   a shift only without padding, which it would not shift
    """

    name: ClassVar[str] = "fold-affine-before"

    def match(self, node: ir.Node) -> bool:
        """Arithmetic with a constant, or BatchNormalization, read first by a linear node."""
        if not is_op(node, *ARITHMETIC, "BatchNormalization"):
            return False
        user = only_user(node.outputs[0])
        reads = user is not None and is_op(user, *LINEAR) and user.inputs[0] is node.outputs[0]
        return reads and node.outputs[0] not in user.inputs[1:] and _value(node) is not None  # type: ignore[union-attr]

    def check(self, node: ir.Node) -> str | None:
        """One number for each input channel, and weights that only this node reads."""
        linear = only_user(node.outputs[0])
        assert linear is not None
        if reason := _weights_reason(linear):
            return reason
        affine = _affine(node, linear)
        if affine is None:
            return "the constant is not one number for each channel"
        if not np.all(np.isfinite(affine[0])):
            return "it divides by zero"
        return _shift_reason(linear) if affine[1].any() else None

    def rewrite(self, node: ir.Node) -> None:
        """Fold in float64; the linear node reads what the node read."""
        linear, value = only_user(node.outputs[0]), _value(node)
        assert linear is not None
        affine = _affine(node, linear)
        assert affine is not None
        _fold(linear, *affine)
        linear.replace_input_with(0, value)
        remove_with_unused(node)


def _value(node: ir.Node) -> ir.Value | None:
    """The input that is no constant; Sub and Div only with the constant second."""
    if is_op(node, "BatchNormalization"):
        simple = not node.attributes.get_int("training_mode", 0) and len(node.inputs) == 5
        return node.inputs[0] if simple and all(is_constant(v) for v in node.inputs[1:]) else None
    first, second = node.inputs[0], node.inputs[1]
    if is_constant(second) and not is_constant(first):
        return first
    swapped = is_op(node, "Add", "Mul") and is_constant(first) and not is_constant(second)
    return second if swapped else None


def _weights_reason(linear: ir.Node) -> str | None:
    weight = linear.inputs[1]
    array = constant(weight)
    if weight is None or array is None or array.ndim < 2 or array.dtype.kind != "f":
        return "the weight is not a constant matrix of floats"
    if is_op(linear, "MatMul") and array.ndim != 2:
        return "the weight is not a matrix"
    if is_op(linear, "Gemm") and (
        bool(linear.attributes.get_int("transA", 0))
        or linear.attributes.get_float("alpha", 1.0) != 1
    ):
        return "the Gemm turns or scales its input"
    if array.nbytes > MAX_GROWTH_BYTES and (
        len(list(weight.uses())) > 1 or weight.is_graph_output()
    ):
        return f"{weight.name} is shared and would be stored twice"
    return None


def _shift_reason(linear: ir.Node) -> str | None:
    """Why a shift of the input is no shift of the output by one number for each channel."""
    if is_op(linear, "MatMul"):
        return "a MatMul has no bias to take the shift"
    if is_op(linear, "Conv"):
        automatic = linear.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        if automatic or any(linear.attributes.get_ints("pads", ())):
            return "the padding would be shifted too"
    if len(linear.inputs) < 3 or linear.inputs[2] is None:
        return None
    bias = constant(linear.inputs[2])
    if is_op(linear, "Gemm") and linear.attributes.get_float("beta", 1.0) != 1:
        return "the Gemm scales its bias"
    return None if bias is not None and bias.ndim == 1 else "the bias is not a constant vector"


def _channels(linear: ir.Node) -> int:
    weight = constant(linear.inputs[1])
    assert weight is not None
    if is_op(linear, "Conv"):
        return int(weight.shape[1]) * linear.attributes.get_int("group", 1)
    return int(weight.shape[1 if _transposed(linear) else 0])


def _transposed(linear: ir.Node) -> bool:
    return is_op(linear, "Gemm") and bool(linear.attributes.get_int("transB", 0))


def _affine(node: ir.Node, linear: ir.Node) -> tuple[Array, Array] | None:
    """Factor and shift of each input channel, in float64."""
    count = _channels(linear)
    one, zero = np.ones(count), np.zeros(count)
    if is_op(node, "BatchNormalization"):
        if not is_op(linear, "Conv"):
            return None
        g, b, mean, var = (constant(v).astype(np.float64) for v in node.inputs[1:5])  # type: ignore[union-attr]
        scale = g / np.sqrt(var + node.attributes.get_float("epsilon", 1e-5))
        return scale, b - mean * scale
    value = _value(node)
    k = _per_channel(node.inputs[1 if node.inputs[0] is value else 0], value, linear, count)
    if k is None:
        return None
    with np.errstate(all="ignore"):
        return {"Mul": (k, zero), "Div": (1 / k, zero), "Add": (one, k), "Sub": (one, -k)}[
            node.op_type
        ]


def _per_channel(
    other: ir.Value | None, value: ir.Value | None, linear: ir.Node, count: int
) -> Array | None:
    """The constant as [channels], when it broadcasts along the channel axis of the input only."""
    array, size = constant(other), rank(value)
    weight = constant(linear.inputs[1])
    if array is None or weight is None or size is None or array.dtype != weight.dtype:
        return None
    if array.ndim > size:
        return None
    tail = size - 2 if is_op(linear, "Conv") else 0
    wanted = (count, *(1,) * tail)
    fits = array.size == 1 or (array.size == count and array.shape[-len(wanted) :] == wanted)
    return np.broadcast_to(array.reshape(-1), (count,)).astype(np.float64) if fits else None


def _fold(linear: ir.Node, scale: Array, shift: Array) -> None:
    weight = constant(linear.inputs[1])
    assert weight is not None
    wide, kind = weight.astype(np.float64), weight.dtype
    if shift.any():
        moved = _broadcast(linear, shift, weight) * wide
        axes = tuple(range(1, wide.ndim)) if is_op(linear, "Conv") else int(_transposed(linear))
        old = constant(linear.inputs[2]) if len(linear.inputs) > 2 else None
        total = moved.sum(axis=axes) + (0.0 if old is None else old.astype(np.float64))
        set_bias(linear, total.astype(kind))
    if not np.all(scale == 1):
        replace_constant(linear, 1, (wide * _broadcast(linear, scale, weight)).astype(kind))


def _broadcast(linear: ir.Node, vector: Array, weight: Array) -> Array:
    """Shaped along the weight's input channels."""
    if not is_op(linear, "Conv"):
        return vector if _transposed(linear) else vector.reshape(-1, 1)
    group = linear.attributes.get_int("group", 1)
    rows = np.repeat(vector.reshape(group, -1), weight.shape[0] // group, axis=0)
    return rows.reshape(weight.shape[0], weight.shape[1], *(1,) * (weight.ndim - 2))
