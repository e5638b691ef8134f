"""Scaling and shifting the output channels of Conv, ConvTranspose and Gemm in their constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.base import is_op
from passes.graph import add_initializer, constant, shared_reason, take_description

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

LINEAR = ("Conv", "ConvTranspose", "Gemm")


def foldable_reason(node: ir.Node | None, after: ir.Node) -> str | None:
    """Why `after` cannot be folded into the linear node before it; None when it can."""
    if node is None or not is_op(node, *LINEAR):
        return "its input is no Conv, ConvTranspose or Gemm"
    if reason := shared_reason(node.outputs[0]):
        return reason
    if node.graph is not after.graph:
        return "the two nodes are in different graphs"
    for value in node.inputs[1:]:
        if value is None:
            continue
        if constant(value) is None:
            return f"{value.name} is not a constant"
    if is_op(node, "Gemm"):
        return _gemm_reason(node)
    return None


def _gemm_reason(node: ir.Node) -> str | None:
    if node.attributes.get_float("alpha", 1.0) != 1 or node.attributes.get_float("beta", 1.0) != 1:
        return "the Gemm scales its product"
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and bias.size not in (1, channels(node)):
        return "the Gemm adds a matrix"
    return None


def channels(node: ir.Node) -> int:
    """Number of output channels."""
    weight = constant(node.inputs[1])
    assert weight is not None
    if is_op(node, "Gemm"):
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
        scaled = weight.astype(np.float64) * _beside(node, weight, scale.astype(np.float64))
        _set_input(node, 1, scaled.astype(weight.dtype))
        bias = bias * scale.astype(np.float64)
    if shift is not None:
        bias = bias + shift.astype(np.float64)
    if value is not None or np.any(bias):
        _set_input(node, 2, bias.astype(weight.dtype))


def _array(value: ir.Value) -> Array:
    array = constant(value)
    assert array is not None
    return array.reshape(-1)


def _beside(node: ir.Node, weight: Array, scale: Array) -> Array:
    """The scale, shaped to broadcast along the weight's output channels."""
    if is_op(node, "Gemm"):
        return scale.reshape(-1, 1) if node.attributes.get_int("transB", 0) else scale
    if is_op(node, "Conv"):
        return scale.reshape(-1, *(1,) * (weight.ndim - 1))
    group = node.attributes.get_int("group", 1)
    inputs = weight.shape[0] // group  # [C, M/group, ...]: each group has its own channels
    rows = np.repeat(scale.reshape(group, -1), inputs, axis=0)
    return rows.reshape(weight.shape[0], weight.shape[1], *(1,) * (weight.ndim - 2))


def _set_input(node: ir.Node, index: int, array: Array) -> None:
    """Replace a constant input; the old constant goes when nobody else reads it."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    name = f"{node.outputs[0].name}_bias" if old is None else old.name or "folded"
    node.replace_input_with(index, None)
    if old is not None and not old.uses() and not old.is_graph_output():
        graph.initializers.pop(name, None)
    node.replace_input_with(index, add_initializer(graph, name, array))


def absorb(node: ir.Node, after: ir.Node) -> None:
    """Let `node` produce the output of `after`, which then goes; names stay."""
    old, new = after.outputs[0], node.outputs[0]
    name, is_output = old.name, old.is_graph_output()
    take_description(new, old)
    old.replace_all_uses_with(new, replace_graph_outputs=is_output)
    assert after.graph is not None
    after.graph.remove(after, safe=True)
    old.name = None
    new.name = name
