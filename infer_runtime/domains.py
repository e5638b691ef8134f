"""Which integers an input may take, read from where the graph uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

# Operators that pass their first input's values on, whatever its shape becomes.
CARRIERS = {
    "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice",
    "Expand", "Tile",
}  # fmt: skip
RECURRENT = {"RNN": 4, "GRU": 4, "LSTM": 4}  # the place of sequence_lens
INDICES = 1
FLAG = 2


def domain_of(value: ir.Value) -> tuple[int, int] | None:
    """The range [low, high) of an input that is an index, a length or a mask, else None.

    - indices of Gather and GatherElements along a known axis: 0 to its size (token numbers);
    - sequence_lens of RNN, GRU and LSTM: from 1, up to the length of the sequence where known;
    - what is cast to bool, or subtracted from the constant 1: a mask, 0 or 1.

    An input used in several ways gets the narrowest range.
    """
    ranges = list(_ranges(value))
    if not ranges:
        return None
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    return (low, max(high, low + 1))


def _ranges(start: ir.Value) -> Iterator[tuple[int, int]]:
    pending, seen = [start], {id(start)}
    while pending:
        value = pending.pop()
        for node, place in value.uses():
            found = _use(node, place)
            if found is not None:
                yield found
            if node.op_type in CARRIERS and place == 0 and id(node.outputs[0]) not in seen:
                seen.add(id(node.outputs[0]))
                pending.append(node.outputs[0])


def _use(node: ir.Node, place: int) -> tuple[int, int] | None:
    if node.op_type in ("Gather", "GatherElements") and place == INDICES:
        size = _size(node.inputs[0], int(node.attributes.get_int("axis", 0)))
        return None if size is None else (0, size)
    if RECURRENT.get(node.op_type) == place:
        time = 1 if node.attributes.get_int("layout", 0) else 0
        length = _size(node.inputs[0], time)
        return (1, FLAG if length is None else length + 1)
    if node.op_type == "Cast" and node.attributes.get_int("to", 0) == _BOOL:
        return (0, FLAG)
    if node.op_type == "Sub" and place == 1 and _is_one(node.inputs[0]):
        return (0, FLAG)
    return None


_BOOL = 9  # TensorProto.BOOL


def _size(value: ir.Value | None, axis: int) -> int | None:
    if value is None:
        return None
    shape = value.shape
    if shape is None and value.const_value is not None:
        shape = ir.Shape(value.const_value.numpy().shape)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    return size if isinstance(size, int) and size > 0 else None


def _is_one(value: ir.Value | None) -> bool:
    constant = None if value is None else value.const_value
    return constant is not None and constant.size == 1 and bool(np.all(constant.numpy() == 1))
