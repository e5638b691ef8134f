"""Hidden units of recurrent layers and heads of fused attention as channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.evaluate import describe
from passes.base import is_op
from passes.graph import constant
from passes.match import argument
from quant.prune.channels import Product, Repair

if TYPE_CHECKING:
    import onnx_ir as ir

    from quant.prune.channels import Channels

    Array = np.ndarray[Any, Any]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3
MOVES = ("Expand", "Identity", "Slice", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather")
STATES = (5, 6)  # inputs that hold h and c before the first step
PER_HEAD = 4  # axes of queries, keys and values: samples, heads, positions, size


def recurrent(node: ir.Node, channels: Channels) -> None:
    """A unit is a row of every gate and a column of what the next step reads.

    Both directions lose the same units, so that they stay of one size.
    """
    gates, (w, r) = GATES[node.op_type], node.inputs[1:3]
    weight, hidden = constant(w), constant(r)
    if weight is None or hidden is None or node.attributes.get_int("layout", 0) != 0:
        channels.pin_all(node.inputs, f"{describe(node)} has computed weights or another layout")
        return
    assert w is not None
    assert r is not None
    key = (r.name or "", 2)
    units = (
        channels.constants[key] if key in channels.constants else channels.fresh(hidden.shape[2])
    )
    read = channels.of(node.inputs[0], 2)
    channels.give(w, 2, read)
    channels.give(r, 2, units)
    for value in (w, r):
        channels.give(value, 1, np.tile(units, gates))
        channels.makers.add((value.name or "", 1))
    channels.give(argument(node, 3), 1, np.tile(units, 2 * gates))
    channels.give(argument(node, 7), 1, np.tile(units, PEEPHOLES))
    for index in STATES:
        _state(node, index, channels, units)
    for output, axis in zip(node.outputs, (3, 2, 2), strict=False):
        channels.give(output, axis, units)
    channels.repairs.append(Repair(node, "hidden_size", {0: units}))
    _count(node, channels, units, read, weight.shape[2])


def _state(node: ir.Node, index: int, channels: Channels, units: Array) -> None:
    """What a layer starts with: nothing, zeros, a constant, or what another layer left."""
    value = argument(node, index)
    if value is None or is_zeros(value):
        return
    if constant(value) is None and channels.of(value, 2) is None:
        channels.pin(units, f"{describe(node)} starts with {value.name}, which has no channels")
    channels.give(value, 2, units)


def is_zeros(value: ir.Value) -> bool:
    """Is it computed, and from zeros alone, whatever its shape?"""
    node = value.producer()
    if is_op(node, *MOVES):
        assert node is not None
        source = node.inputs[0]
        array = constant(source)
        return not np.any(array) if array is not None else source is not None and is_zeros(source)
    if not is_op(node, "ConstantOfShape"):
        return False
    assert node is not None
    return "value" not in node.attributes or not np.any(
        node.attributes["value"].as_tensor().numpy()
    )


def _count(
    node: ir.Node, channels: Channels, units: Array, read: Array | None, inputs: int
) -> None:
    """A unit meets the inputs, and all units."""
    name, whole = node.name or "", inputs + len(units)
    met = [units] if read is None else [units, read]
    channels.products.append(Product(name, met, inputs / whole))
    channels.products.append(Product(name, [units, units], len(units) / whole))


def attention(node: ir.Node, channels: Channels) -> None:
    """Heads of queries, keys and values go together; what is inside of a head stays."""
    ends = [*node.inputs[:3], node.outputs[0]]
    whole = all(len(channels.shape(v)) == PER_HEAD for v in ends)
    found = [channels.of(v, 1) for v in node.inputs[:3]]
    heads = [h for h in found if h is not None]
    others = [v for v in [*node.inputs[4:], *node.outputs[1:]] if v is not None and v.name]
    alike = len(heads) == len(found) and len({len(h) for h in heads}) == 1
    if not whole or others or not alike or _masks_heads(node, channels):
        channels.pin_all(node.inputs, f"{describe(node)} has heads in a way not known here")
        return
    for value in node.inputs[:3]:
        channels.pin(channels.of(value, 3), f"{describe(node)} scales by their number")
        channels.give(node.inputs[0], 1, channels.of(value, 1))
    channels.give(node.outputs[0], 1, heads[0])


def _masks_heads(node: ir.Node, channels: Channels) -> bool:
    """Has the mask an axis of heads that would have to be cut?"""
    shape = channels.shape(argument(node, 3))
    return len(shape) == PER_HEAD and shape[1] > 1
