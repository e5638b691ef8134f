"""Scaling and shifting the output channels of linear nodes in their constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.base import is_op
from passes.graph import (
    MAX_GROWTH_BYTES,
    add_initializer,
    constant,
    is_constant,
    replace_constant,
    shared_reason,
    take_description,
)
from passes.match import rank

if TYPE_CHECKING:
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

LINEAR = ("Conv", "ConvTranspose", "Gemm")
SCALED = (*LINEAR, "MatMul")  # a MatMul has no bias, but a weight to be scaled
MATRIX = 2


def foldable_reason(node: ir.Node | None, after: ir.Node) -> str | None:
    """Why `after` cannot be folded into the linear node before it; None when it can."""
    if node is None or not is_op(node, *SCALED):
        return "its input is no Conv, ConvTranspose, Gemm or MatMul"
    if reason := shared_reason(node.outputs[0]):
        return reason
    if node.graph is not after.graph:
        return "the two nodes are in different graphs"
    for value in node.inputs[1:]:
        if value is None:
            continue
        if not is_constant(value):
            return f"{value.name} is not a constant"
    if is_op(node, "MatMul") and rank(node.inputs[1]) != MATRIX:
        return "the weight is not a matrix"
    return _gemm_reason(node) if is_op(node, "Gemm") else None


def _gemm_reason(node: ir.Node) -> str | None:
    if node.attributes.get_float("alpha", 1.0) != 1 or node.attributes.get_float("beta", 1.0) != 1:
        return "the Gemm scales its product"
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None or bias.size == 1 or bias.shape in ((channels(node),), (1, channels(node))):
        return None
    return "the Gemm adds more than one value for each channel"


def copy_reason(node: ir.Node, after: ir.Node) -> str | None:
    """Why scaling the weight would make the file grow: others keep reading the old one.

    It does not when each of them is followed by the same constants: then all weights fold, to
    equal ones, which are stored once.
    """
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    if weight.const_value.nbytes <= MAX_GROWTH_BYTES:
        return None
    others = [user for user, _ in weight.uses() if user is not node]
    if weight.is_graph_output() or not all(_folds_alike(o, node, after) for o in others):
        return f"{weight.name} is shared and would be stored twice"
    return None


def _folds_alike(other: ir.Node, node: ir.Node, after: ir.Node) -> bool:
    if not is_op(other, node.op_type) or shared_reason(other.outputs[0]):
        return False
    ((follower, _),) = other.outputs[0].uses()
    return (
        is_op(follower, after.op_type)
        and _epsilon(follower) == _epsilon(after)
        and _beside(follower, other) == _beside(after, node)
    )


def _epsilon(after: ir.Node) -> float:
    return after.attributes.get_float("epsilon", 1e-5)


def _beside(after: ir.Node, linear: ir.Node) -> list[int | None]:
    """What `after` reads beside the linear node's output, in order."""
    return [None if v is linear.outputs[0] else id(v) for v in after.inputs]


def channels(node: ir.Node) -> int:
    """Number of output channels."""
    weight = constant(node.inputs[1])
    assert weight is not None
    if is_op(node, "Gemm", "MatMul"):
        return int(weight.shape[0 if node.attributes.get_int("transB", 0) else 1])
    if is_op(node, "ConvTranspose"):
        return int(weight.shape[1]) * node.attributes.get_int("group", 1)
    return int(weight.shape[0])


def fold_affine(node: ir.Node, scale: Array | None, shift: Array | None) -> None:
    """Make the node compute y * scale + shift, both [channels], in the type of its weight.

    The products are formed in float64: folding must not add an error of its own. New constants
    are made, as others may share the old ones.
    """
    weight = constant(node.inputs[1])
    assert weight is not None
    count = channels(node)
    value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = np.zeros(count) if value is None else np.broadcast_to(_array(value), (count,))
    bias = bias.astype(np.float64)
    if scale is not None:
        scaled = weight.astype(np.float64) * _broadcast(node, weight, scale.astype(np.float64))
        replace_constant(node, 1, scaled.astype(weight.dtype))
        bias = bias * scale.astype(np.float64)
    if shift is not None:
        bias = bias + shift.astype(np.float64)
    if value is not None or np.any(bias):
        set_bias(node, bias.astype(weight.dtype))


def _array(value: ir.Value) -> Array:
    array = constant(value)
    assert array is not None
    return array.reshape(-1)


def _broadcast(node: ir.Node, weight: Array, scale: Array) -> Array:
    """The scale, shaped to broadcast along the weight's output channels."""
    if is_op(node, "Gemm", "MatMul"):
        return scale.reshape(-1, 1) if node.attributes.get_int("transB", 0) else scale
    if is_op(node, "Conv"):
        return scale.reshape(-1, *(1,) * (weight.ndim - 1))
    group = node.attributes.get_int("group", 1)
    inputs = weight.shape[0] // group  # [C, M/group, ...]: each group has its own channels
    rows = np.repeat(scale.reshape(group, -1), inputs, axis=0)
    return rows.reshape(weight.shape[0], weight.shape[1], *(1,) * (weight.ndim - 2))


def set_bias(node: ir.Node, array: Array) -> None:
    """Give the node a bias of its own, in the place of the one it has."""
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        replace_constant(node, 2, array)
        return
    node.resize_inputs(3)
    name = f"{node.outputs[0].name}_bias"
    node.replace_input_with(2, add_initializer(node.graph, name, array))


def absorb(node: ir.Node, after: ir.Node) -> None:
    """Let `node` produce the output of `after`, which then goes; names stay."""
    old, new = after.outputs[0], node.outputs[0]
    name, is_output = old.name, old.is_graph_output()
    take_description(new, old)
    if is_output:
        new.shape = old.shape  # an output stays as it was declared, without a shape too
    old.replace_all_uses_with(new, replace_graph_outputs=is_output)
    assert after.graph is not None
    after.graph.remove(after, safe=True)
    old.name = None
    new.name = name
