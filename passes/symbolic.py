"""Small integer vectors that are computed from shapes, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from passes.base import all_nodes, is_op
from passes.graph import constant
from passes.match import Dim, Dims, argument, dims, ints

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    Elements = dict[int, Dims]

LONGEST = 32  # a shape is not longer than this


def shape_elements(model: ir.Model) -> Elements:
    """What is known of each shape-like value, by `id`: a number or a dimension's name for each
    element, None where it is unknown. A scalar counts as a vector of one. One walk in order.
    """
    found: Elements = {}
    for node in all_nodes(model):
        elements = node_elements(node, found)
        if elements is not None:
            found[id(node.outputs[0])] = elements
    return found


def node_elements(node: ir.Node, found: Elements) -> Dims | None:
    """Of the output of one node, from what was found of the nodes before it."""
    rule = _RULES.get(node.op_type) if is_op(node, node.op_type) else None
    if rule is None or node.inputs[0] is None:
        return None
    elements = rule(node, found)
    return elements if elements is not None and len(elements) <= LONGEST else None


def _of(value: ir.Value | None, found: Elements) -> Dims | None:
    if value is None:
        return None
    if id(value) in found:
        return found[id(value)]
    if value.const_value is None or value.const_value.size > LONGEST:
        return None
    known = ints(value)
    return None if known is None else tuple(known)


def _shape(node: ir.Node, _found: Elements) -> Dims | None:
    known = dims(node.inputs[0])
    if known is None:
        return None
    end = node.attributes.get("end")
    return known[node.attributes.get_int("start", 0) : None if end is None else end.as_int()]


def _gather(node: ir.Node, found: Elements) -> Dims | None:
    data, index = _of(node.inputs[0], found), ints(node.inputs[1])
    vector = node.inputs[0]
    if data is None or index is None or node.attributes.get_int("axis", 0) not in (0, -1):
        return None
    if vector is None or vector.shape is None or len(vector.shape) != 1:
        return None
    if any(not -len(data) <= i < len(data) for i in index):
        return None
    return tuple(data[i] for i in index)


def _slice(node: ir.Node, found: Elements) -> Dims | None:
    data = _of(node.inputs[0], found)
    bounds = [ints(argument(node, i)) for i in (1, 2)]
    steps = ints(node.inputs[4]) if argument(node, 4) is not None else [1]
    if data is None or any(b is None or len(b) != 1 for b in bounds) or steps != [1]:
        return None
    (start,), (end,) = (b for b in bounds if b is not None)
    return data[start:end]


def _concat(node: ir.Node, found: Elements) -> Dims | None:
    parts = [_of(v, found) for v in node.inputs]
    return tuple(e for p in parts for e in p) if all(p is not None for p in parts) else None  # type: ignore[union-attr]


def _same(node: ir.Node, found: Elements) -> Dims | None:
    """Reshaping a vector or a number."""
    output = node.outputs[0]
    if output.shape is not None and len(output.shape) > 1:
        return None
    return _of(node.inputs[0], found)


def _cast(node: ir.Node, found: Elements) -> Dims | None:
    output = node.outputs[0]
    is_integer = output.dtype is not None and output.dtype.is_integer()
    return _of(node.inputs[0], found) if is_integer else None


def _arithmetic(function: Callable[[int, int], int]) -> Callable[[ir.Node, Elements], Dims | None]:
    def compute(node: ir.Node, found: Elements) -> Dims | None:
        if len(node.inputs) != 2:
            return None  # Max and Min take any number
        a, b = (_of(v, found) for v in node.inputs)
        if a is None or b is None:
            return None
        size = max(len(a), len(b))
        if len(a) not in (1, size) or len(b) not in (1, size):
            return None
        pairs = zip(a * (size // len(a)), b * (size // len(b)), strict=True)
        return tuple(_apply(function, x, y) for x, y in pairs)

    return compute


def _apply(function: Callable[[int, int], int], x: Dim, y: Dim) -> Dim:
    return function(x, y) if isinstance(x, int) and isinstance(y, int) else None


def _divide(x: int, y: int) -> int:
    return int(np.trunc(x / y)) if y else 0


_RULES: dict[str, Callable[[ir.Node, Elements], Dims | None]] = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Reshape": _same,
    "Identity": _same,
    "Cast": _cast,
    "Add": _arithmetic(lambda x, y: x + y),
    "Sub": _arithmetic(lambda x, y: x - y),
    "Mul": _arithmetic(lambda x, y: x * y),
    "Div": _arithmetic(_divide),
    "Min": _arithmetic(min),
    "Max": _arithmetic(max),
}


def elements_of(value: ir.Value | None, found: Elements) -> Dims | None:
    """Of one value, also when it is a constant."""
    return _of(value, found)


def is_shape_like(value: ir.Value) -> bool:
    """Is it an integer number or vector, and no constant yet?"""
    is_integer = value.dtype is not None and value.dtype.is_integer()
    return is_integer and constant(value) is None
