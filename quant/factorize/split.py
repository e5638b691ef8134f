"""Putting two layers in the place of one.

The first keeps what the layer does to places (strides, paddings) and gets a name derived from the
layer's; the second keeps the layer's name and output, so that everything behind it stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.base import is_op
from passes.graph import add_initializer, constant, forget_names, fresh_name, replace_constant
from passes.infer_shapes import InferShapes
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable

    from quant.factorize.choose import Option
    from quant.factorize.layers import Cut

    Array = np.ndarray[Any, Any]

SUFFIX = "_low"


def split(model: ir.Model, chosen: Iterable[tuple[Cut, Option]]) -> ir.Model:
    """A copy in which these layers are cut."""
    copy = model.clone()
    forget_names(copy)
    nodes = {n.name: n for n in copy.graph}
    for cut, option in chosen:
        if option.way is not None:
            _split(nodes[cut.node.name], cut, option)
    InferShapes().apply(copy)
    verify(copy)
    return copy


def _split(node: ir.Node, cut: Cut, option: Option) -> None:
    assert option.way is not None
    found = cut.ways[option.way]
    first, second = found.first[:, : option.rank], found.second[: option.rank]
    shift = cut.shift(cut.rows_at(option.way, option.rank))
    attributes: dict[str, ir.Attr] = {}
    if is_op(node, "Conv"):
        attributes = _conv_attributes(node, option)
        first, second = _first_conv(first, cut, option), _second_conv(second, cut, option)
    _insert(node, first.astype(np.float32), attributes)
    if is_op(node, "Gemm"):
        node.attributes.pop("transB", None)
    replace_constant(node, 1, np.ascontiguousarray(second, np.float32))
    if np.any(shift):
        _add_bias(node, shift.astype(np.float32))


def _insert(node: ir.Node, weight: Array, attributes: dict[str, ir.Attr]) -> None:
    graph, old = node.graph, node.inputs[1]
    assert graph is not None
    assert old is not None
    name = add_initializer(graph, f"{old.name}{SUFFIX}", np.ascontiguousarray(weight))
    new = ir.node(node.op_type, [node.inputs[0], name])
    new.attributes.update(attributes)
    new.name = fresh_name(graph, f"{node.name}{SUFFIX}")
    new.outputs[0].name = fresh_name(graph, f"{node.outputs[0].name}{SUFFIX}")
    new.outputs[0].type = node.outputs[0].type
    graph.insert_before(node, new)
    node.replace_input_with(0, new.outputs[0])


def _first_conv(first: Array, cut: Cut, option: Option) -> Array:
    """[inputs * taps, rank] as the weight of a convolution."""
    taps = cut.taps if option.way == "channel" else (cut.taps[0], 1)
    return first.T.reshape(option.rank, -1, *taps)


def _second_conv(second: Array, cut: Cut, option: Option) -> Array:
    """[rank, outputs] or [rank, outputs * width] as the weight of a convolution."""
    outputs = len(cut.rows)
    if option.way == "channel":
        return second.T.reshape(outputs, option.rank, *(1 for _ in cut.taps))
    return second.reshape(option.rank, outputs, 1, cut.taps[1]).transpose(1, 0, 2, 3)


def _conv_attributes(node: ir.Node, option: Option) -> dict[str, ir.Attr]:
    """Those of the first factor; the node gets those of the second."""
    weight = constant(node.inputs[1])
    assert weight is not None
    axes = weight.ndim - 2
    given = dict(node.attributes)
    spatial = option.way == "spatial"
    node.attributes.pop("auto_pad", None)
    first = dict(given)
    for name, count, neutral in (
        ("kernel_shape", 1, 1), ("strides", 1, 1), ("dilations", 1, 1), ("pads", 2, 0)
    ):  # fmt: skip
        default = weight.shape[2:] if name == "kernel_shape" else [neutral] * (axes * count)
        values = list(given[name].as_ints()) if name in given else list(default)
        column = [v if spatial and i % axes == 0 else neutral for i, v in enumerate(values)]
        row = [v if spatial and i % axes == 1 else neutral for i, v in enumerate(values)]
        first[name] = ir.AttrInt64s(name, column if spatial else values)
        node.attributes[name] = ir.AttrInt64s(name, row)
    return first


def _add_bias(node: ir.Node, shift: Array) -> None:
    old = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if old is not None:
        replace_constant(node, 2, (old + shift).astype(old.dtype))
        return
    node.resize_inputs(3)
    node.replace_input_with(2, add_initializer(node.graph, f"{node.name}_bias", shift))
