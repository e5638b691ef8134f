"""Removing channels: smaller constants, and the numbers that nodes hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.graph import add_initializer, constant, replace_constant
from passes.match import argument
from quant.prune.sequence import STATES, is_zeros

if TYPE_CHECKING:
    from collections.abc import Collection

    from quant.prune.channels import Channels, Repair

    Array = np.ndarray[Any, Any]


def shrink(model: ir.Model, channels: Channels, removed: Collection[int]) -> None:
    """Take these classes out of the model, in place.

    Args:
        model: the one that `channels` was traced on.
        channels: its channels.
        removed: classes, none of them pinned.

    """
    gone = np.array(sorted(removed), np.int64)
    by_name: dict[str, dict[int, Array]] = {}
    for (name, axis), atoms in channels.constants.items():
        by_name.setdefault(name, {})[axis] = ~np.isin(channels.classes(atoms), gone)
    for name, kept in by_name.items():
        _cut(model.graph.initializers[name], kept)
    for repair in channels.repairs:
        counts = {
            k: int(np.sum(~np.isin(channels.classes(a), gone))) for k, a in repair.counts.items()
        }
        whole = {k: len(a) for k, a in repair.counts.items()}
        _REPAIRS[repair.kind](repair, counts, whole)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def _cut(value: ir.Value, kept: dict[int, Array]) -> None:
    tensor = value.const_value
    assert tensor is not None
    array = tensor.numpy()
    for axis, mask in kept.items():
        array = np.compress(mask, array, axis)
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)


def _attribute(repair: Repair, counts: dict[int, int], whole: dict[int, int]) -> None:
    del whole
    repair.node.attributes[repair.kind] = ir.AttrInt64(repair.kind, counts[0])


def _hidden_size(repair: Repair, counts: dict[int, int], whole: dict[int, int]) -> None:
    """States of zeros are what a layer starts with by itself, in any size."""
    _attribute(repair, counts, whole)
    for index in STATES:
        value = argument(repair.node, index)
        if value is not None and is_zeros(value):
            repair.node.replace_input_with(index, None)


def _split(repair: Repair, counts: dict[int, int], whole: dict[int, int]) -> None:
    """Sizes are given outright: pieces that were equal may not be any more."""
    node = repair.node
    if counts == whole:
        return
    sizes = np.array([counts[i] for i in range(len(counts))], np.int64)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        replace_constant(node, 1, sizes)
        return
    node.attributes.pop("num_outputs", None)
    node.resize_inputs(2)
    node.replace_input_with(1, add_initializer(node.graph, f"{node.name}_sizes", sizes))


def _reshape(repair: Repair, counts: dict[int, int], whole: dict[int, int]) -> None:
    """Sizes that are written out become the new ones; 0 and -1 still say the same."""
    array = constant(repair.node.inputs[1])
    assert array is not None
    shape = array.copy()
    for axis, count in counts.items():
        if shape[axis] > 0 and count != whole[axis]:
            shape[axis] = count
    if not np.array_equal(shape, array):
        replace_constant(repair.node, 1, shape)


_REPAIRS = {
    "group": _attribute,
    "hidden_size": _hidden_size,
    "split": _split,
    "reshape": _reshape,
}
