"""How each operator passes channels on; what has no rule pins all that it reads."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.evaluate import describe
from passes.base import is_op
from passes.graph import constant
from passes.match import argument, ints, pad_sizes
from passes.traits import is_broadcasting, is_unary
from quant.prune.channels import Product, Repair
from quant.prune.reshape import flatten, reshape
from quant.prune.sequence import GATES, attention, recurrent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from quant.prune.channels import Channels

    Array = np.ndarray[Any, Any]
    Rule = Callable[[ir.Node, Channels], None]

MATRIX = 2


def apply_rule(node: ir.Node, channels: Channels) -> None:
    """Pass the channels of a node's inputs on to its outputs."""
    rule = _RULES.get(node.op_type) if is_op(node, node.op_type) else None
    if rule is not None:
        rule(node, channels)
    elif is_unary(node):
        _same(node, channels)
    elif is_broadcasting(node):
        _broadcast(node, channels)
    else:
        _unknown(node, channels)


def _unknown(node: ir.Node, channels: Channels) -> None:
    read = list(node.inputs)
    for attribute in node.attributes.values():
        if attribute.type.name == "GRAPH":
            read += [v for inner in attribute.as_graph().all_nodes() for v in inner.inputs]
    channels.pin_all(read, f"{describe(node)} has no rule")


def _same(node: ir.Node, channels: Channels, axes: Sequence[int] | None = None) -> None:
    """Axes of the first input are those of the first output."""
    for axis in range(len(channels.shape(node.inputs[0]))) if axes is None else axes:
        channels.give(node.outputs[0], axis, channels.of(node.inputs[0], axis))


def _broadcast(node: ir.Node, channels: Channels) -> None:
    """Where axes meet, their channels are joined; constants along them are cut with them."""
    rank = len(channels.shape(node.outputs[0]))
    for back in range(1, rank + 1):
        met = [v for v in node.inputs if v is not None and _size(channels, v, back) > 1]
        atoms = [channels.of(v, len(channels.shape(v)) - back) for v in met]
        known = [a for a in atoms if a is not None]
        if not known:
            continue
        for value, found in zip(met, atoms, strict=True):
            axis = len(channels.shape(value)) - back
            if found is not None or constant(value) is not None:
                channels.give(value, axis, known[0])
            else:
                channels.pin(
                    known[0], f"{describe(node)} meets {value.name}, which has no channels"
                )
        channels.give(node.outputs[0], rank - back, known[0])


def _size(channels: Channels, value: ir.Value, back: int) -> int:
    shape = channels.shape(value)
    return shape[-back] if back <= len(shape) else 1


def _conv(node: ir.Node, channels: Channels) -> None:
    weight = constant(node.inputs[1])
    group = node.attributes.get_int("group", 1)
    read = channels.of(node.inputs[0], 1)
    if weight is None:
        _unknown(node, channels)
        return
    assert node.inputs[1] is not None
    outputs, per_group = weight.shape[:2]
    if group > 1 and per_group == 1:
        made = _depthwise(node, channels, read, group, outputs)
    else:
        made = channels.made(node.inputs[1], 0)
        if group > 1:
            _tie_groups(channels, made, group)
            read = None if read is None else _tie_groups(channels, read, group)
        channels.give(node.inputs[1], 1, read)
        _counts(node, channels, [read, made])
    channels.give(argument(node, 2), 0, made)
    channels.give(node.outputs[0], 1, made)


def _counts(node: ir.Node, channels: Channels, factors: Sequence[Array | None]) -> None:
    """The multiply-accumulates of a node follow from how much of these stays."""
    channels.products.append(Product(node.name or "", [f for f in factors if f is not None]))


def _depthwise(
    node: ir.Node, channels: Channels, read: Array | None, group: int, outputs: int
) -> Array:
    """Each input channel makes its own outputs and goes with them."""
    if read is None:
        read = channels.fresh(group)
        channels.pin(read, f"{describe(node)} reads values without channels")
    made: Array = np.repeat(read, outputs // group)
    channels.give(node.inputs[1], 0, made)
    _counts(node, channels, [made])
    channels.repairs.append(Repair(node, "group", {0: read}))
    return made


def _tie_groups(channels: Channels, atoms: Array, group: int) -> Array:
    """All groups lose the same channels, so that they stay of one size; the first group's."""
    rows = atoms.reshape(group, -1)
    for row in rows[1:]:
        channels.join(rows[0], row)
    first: Array = rows[0]
    return first


def _conv_transpose(node: ir.Node, channels: Channels) -> None:
    if constant(node.inputs[1]) is None or node.attributes.get_int("group", 1) != 1:
        _unknown(node, channels)
        return
    assert node.inputs[1] is not None
    read, made = channels.of(node.inputs[0], 1), channels.made(node.inputs[1], 1)
    channels.give(node.inputs[1], 0, read)
    channels.give(argument(node, 2), 0, made)
    channels.give(node.outputs[0], 1, made)
    _counts(node, channels, [read, made])


def _gemm(node: ir.Node, channels: Channels) -> None:
    if constant(node.inputs[1]) is None or node.attributes.get_int("transA", 0) != 0:
        _unknown(node, channels)
        return
    inner = 1 if node.attributes.get_int("transB", 0) else 0
    _dense(node, channels, inner)
    bias = argument(node, 2)
    size = channels.shape(bias)
    if size and size[-1] > 1:
        if constant(bias) is None:
            channels.pin_all([node.outputs[0]], f"{describe(node)} adds a computed bias")
        channels.give(bias, len(size) - 1, channels.of(node.outputs[0], 1))


def _dense(node: ir.Node, channels: Channels, inner: int) -> None:
    """A product of the last axis with a constant matrix."""
    weight = node.inputs[1]
    assert weight is not None
    last = len(channels.shape(node.inputs[0])) - 1
    read, made = channels.of(node.inputs[0], last), channels.made(weight, 1 - inner)
    channels.give(weight, inner, read)
    others = [channels.of(node.inputs[0], axis) for axis in range(last)]
    for axis, atoms in enumerate(others):
        channels.give(node.outputs[0], axis, atoms)
    channels.give(node.outputs[0], last, made)
    _counts(node, channels, [*others, read, made])


def _matmul(node: ir.Node, channels: Channels) -> None:
    a, b = node.inputs
    weight = constant(b)
    if constant(a) is not None or (weight is not None and weight.ndim != MATRIX):
        _unknown(node, channels)
    elif weight is not None:
        _dense(node, channels, 0)
    else:
        _matmul_of_values(node, channels)


def _matmul_of_values(node: ir.Node, channels: Channels) -> None:
    """As in attention: the inner axes are joined, the outer ones go on."""
    a, b = node.inputs
    rank, other = len(channels.shape(a)), len(channels.shape(b))
    if rank != other or rank < MATRIX:
        _unknown(node, channels)
        return
    inner = [channels.of(a, rank - 1), channels.of(b, rank - 2)]
    _join_or_pin(node, channels, inner)
    factors = [inner[0]]
    for axis in range(rank - 2):
        both = [channels.of(a, axis), channels.of(b, axis)]
        _join_or_pin(node, channels, both)
        channels.give(node.outputs[0], axis, both[0])
        factors.append(both[0])
    for value, axis in ((a, rank - 2), (b, rank - 1)):
        channels.give(node.outputs[0], axis, channels.of(value, axis))
        factors.append(channels.of(value, axis))
    _counts(node, channels, factors)


def _join_or_pin(node: ir.Node, channels: Channels, both: list[Array | None]) -> None:
    first, second = both
    if first is not None and second is not None and len(first) == len(second):
        channels.join(first, second)
        return
    for atoms in both:
        channels.pin(atoms, f"{describe(node)} meets values without these channels")


def _batch_norm(node: ir.Node, channels: Channels) -> None:
    atoms = channels.of(node.inputs[0], 1)
    for value in node.inputs[1:]:
        channels.give(value, 0, atoms)
    channels.give(node.outputs[0], 1, atoms)


def _concat(node: ir.Node, channels: Channels) -> None:
    rank = len(channels.shape(node.outputs[0]))
    axis = node.attributes.get_int("axis", 0) % max(rank, 1)
    parts = []
    for value in node.inputs:
        atoms = channels.of(value, axis)
        if atoms is None:
            atoms = channels.fresh(channels.shape(value)[axis] if channels.shape(value) else 0)
            channels.pin(atoms, f"{describe(node)} reads values without channels")
        parts.append(atoms)
    channels.give(node.outputs[0], axis, np.concatenate(parts))
    for other in range(rank):
        found = [channels.of(value, other) for value in node.inputs]
        if other == axis or all(f is None for f in found):
            continue
        for atoms in found[1:]:
            _join_or_pin(node, channels, [found[0], atoms])
        channels.give(node.outputs[0], other, found[0])


def _split(node: ir.Node, channels: Channels) -> None:
    rank = len(channels.shape(node.inputs[0]))
    axis = node.attributes.get_int("axis", 0) % max(rank, 1)
    atoms = channels.of(node.inputs[0], axis)
    given = argument(node, 1)
    if given is not None and constant(given) is None:
        _unknown(node, channels)
        return
    for output in node.outputs:
        for other in range(rank):
            if other != axis:
                channels.give(output, other, channels.of(node.inputs[0], other))
    if atoms is None:
        return
    sizes = [channels.shape(o)[axis] for o in node.outputs]
    pieces = np.split(atoms, np.cumsum(sizes)[:-1])
    for output, piece in zip(node.outputs, pieces, strict=True):
        channels.give(output, axis, piece)
    channels.repairs.append(Repair(node, "split", dict(enumerate(pieces))))


def _transpose(node: ir.Node, channels: Channels) -> None:
    rank = len(channels.shape(node.inputs[0]))
    perm = node.attributes.get_ints("perm", list(range(rank))[::-1])
    for axis, source in enumerate(perm):
        channels.give(node.outputs[0], axis, channels.of(node.inputs[0], source))


def _reduce(node: ir.Node, channels: Channels) -> None:
    """Channels that are reduced away stay: a mean over fewer of them is another number."""
    rank = len(channels.shape(node.inputs[0]))
    axes = ints(argument(node, 1))
    if axes is None:
        axes = list(node.attributes.get_ints("axes", []))
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
        _same(node, channels)
        return
    gone = {a % rank for a in axes} or set(range(rank))
    keep = bool(node.attributes.get_int("keepdims", 1))
    for axis in range(rank):
        if axis in gone:
            channels.pin(channels.of(node.inputs[0], axis), f"{describe(node)} sums over them")
        else:
            target = axis if keep else axis - sum(g < axis for g in gone)
            channels.give(node.outputs[0], target, channels.of(node.inputs[0], axis))


def _pinning(node: ir.Node, channels: Channels, default: int = -1) -> None:
    """Softmax and normalisations: the axes that they look along stay."""
    rank = len(channels.shape(node.inputs[0]))
    first = node.attributes.get_int("axis", default) % max(rank, 1)
    last = rank if node.op_type.endswith("Normalization") else first + 1
    for axis in range(first, last):
        channels.pin(channels.of(node.inputs[0], axis), f"{describe(node)} runs along them")
    _same(node, channels)


def _pad(node: ir.Node, channels: Channels) -> None:
    sizes, rank = pad_sizes(node), len(channels.shape(node.inputs[0]))
    if sizes is None:
        _unknown(node, channels)
        return
    for axis in range(rank):
        if sizes[axis] or sizes[axis + rank]:
            channels.pin(channels.of(node.inputs[0], axis), f"{describe(node)} pads them")
        else:
            _same(node, channels, [axis])


def _resize(node: ir.Node, channels: Channels) -> None:
    scales = constant(argument(node, 2))
    if scales is None or len(scales) != len(channels.shape(node.inputs[0])):
        _unknown(node, channels)
        return
    for axis, scale in enumerate(scales):
        if scale == 1:
            _same(node, channels, [axis])
        else:
            channels.pin(channels.of(node.inputs[0], axis), f"{describe(node)} resizes them")


def _squeeze(node: ir.Node, channels: Channels) -> None:
    """Axes of size 1 carry no channels that could go; the others keep their order."""
    ends = (node.inputs[0], node.outputs[0])
    sides = [[a for a, n in enumerate(channels.shape(v)) if n != 1] for v in ends]
    if prod(channels.shape(node.inputs[0])) == 1 or len(sides[0]) != len(sides[1]):
        _unknown(node, channels)
        return
    for source, target in zip(*sides, strict=True):
        channels.give(node.outputs[0], target, channels.of(node.inputs[0], source))


def _gather(node: ir.Node, channels: Channels) -> None:
    """Picks places of one axis; the others go on."""
    index, rank = constant(node.inputs[1]), len(channels.shape(node.inputs[0]))
    if index is None or constant(node.inputs[0]) is not None or not rank:
        _unknown(node, channels)
        return
    picked = node.attributes.get_int("axis", 0) % rank
    channels.pin(channels.of(node.inputs[0], picked), f"{describe(node)} picks some of them")
    for axis in range(rank):
        if axis != picked:
            target = axis if axis < picked else axis + index.ndim - 1
            channels.give(node.outputs[0], target, channels.of(node.inputs[0], axis))


def _slice(node: ir.Node, channels: Channels) -> None:
    rank = len(channels.shape(node.inputs[0]))
    starts, axes = ints(node.inputs[1]), ints(argument(node, 3))
    if starts is None or (axes is None and argument(node, 3) is not None):
        _unknown(node, channels)
        return
    cut = {a % rank for a in (range(len(starts)) if axes is None else axes)}
    for axis in range(rank):
        if axis in cut:
            channels.pin(channels.of(node.inputs[0], axis), f"{describe(node)} cuts them")
        else:
            _same(node, channels, [axis])


_POOL = partial(_same, axes=(0, 1))
_RULES: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _batch_norm,
    "PRelu": _broadcast,
    "Concat": _concat,
    "Split": _split,
    "Transpose": _transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _squeeze,
    "Pad": _pad,
    "Resize": _resize,
    "Softmax": _pinning,
    "LogSoftmax": _pinning,
    "LayerNormalization": _pinning,
    "RMSNormalization": _pinning,
    "Gather": _gather,
    "Slice": _slice,
    "Attention": attention,
    **dict.fromkeys(GATES, recurrent),
    "Identity": _same,
    "Dropout": _same,
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"), _POOL
    ),
    **dict.fromkeys(
        ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"), _reduce
    ),
}
