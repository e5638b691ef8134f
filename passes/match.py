"""Looking around in a graph: producers, users, dimensions, scalars; and putting a node in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.base import is_op
from passes.graph import constant, take_description

if TYPE_CHECKING:
    from collections.abc import Sequence

Dim = int | str | None
Dims = tuple[Dim, ...]


def producer(value: ir.Value | None, *ops: str) -> ir.Node | None:
    """The node that computes a value, when it is one of these operators."""
    node = None if value is None else value.producer()
    return node if is_op(node, *ops) else None


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, in its own graph; None when anything else sees it too."""
    users = {user for user, _ in value.uses()}
    if value.is_graph_output() or len(users) != 1:
        return None
    (user,) = users
    node = value.producer()
    return user if node is not None and user.graph is node.graph else None


def inner(value: ir.Value | None, user: ir.Node, *ops: str) -> ir.Node | None:
    """The producer of a value, when it is one of these operators and only `user` reads it."""
    node = producer(value, *ops)
    if node is None or value is None or only_user(value) is not user:
        return None
    return node


def dims(value: ir.Value | None) -> Dims | None:
    """Dimensions: an int, the name of a dynamic one, or None; None for an unknown rank.

    Equal names mean equal sizes. Some exporters call every dynamic dimension '?': no name at all.
    """
    if value is None or value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else _symbol(d.value) for d in value.shape)


def _symbol(name: str | None) -> str | None:
    return name if name and (name[0].isalpha() or name[0] in "_(") else None


def rank(value: ir.Value | None) -> int | None:
    """Number of dimensions, where known."""
    return None if value is None or value.shape is None else len(value.shape)


def scalar(value: ir.Value | None) -> float | None:
    """A constant of one element as a number; None for anything else."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    array = constant(value)
    return None if array is None or array.dtype.kind not in "biuf" else float(array.reshape(()))


def ints(value: ir.Value | None) -> list[int] | None:
    """A constant vector of integers; None for anything else."""
    array = constant(value)
    if array is None or array.dtype.kind not in "iu":
        return None
    return [int(v) for v in np.atleast_1d(array).reshape(-1)]


def pad_sizes(pad: ir.Node) -> list[int] | None:
    """Begins, then ends of all axes of a Pad; None when they are not constant."""
    pads, size = ints(argument(pad, 1)), rank(pad.inputs[0])
    if argument(pad, 3) is None or pads is None:
        return pads
    axes = ints(pad.inputs[3])
    if axes is None or size is None:
        return None
    full = [0] * (2 * size)
    for index, axis in enumerate(axes):
        full[axis % size] = pads[index]
        full[axis % size + size] = pads[index + len(axes)]
    return full


def argument(node: ir.Node, index: int) -> ir.Value | None:
    """An input that may be absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def close(a: float | None, b: float) -> bool:
    """Are they equal up to the rounding of float32?"""
    return a is not None and abs(a - b) <= 1e-6 * max(abs(b), 1e-30)


def replace_node(
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any] | None = None,
) -> ir.Node:
    """Put another node in the place of one; it takes over name and first output."""
    graph, old = node.graph, node.outputs[0]
    assert graph is not None
    new = ir.node(op_type, inputs, attributes or {}, name=node.name)
    graph.insert_before(node, new)
    value = new.outputs[0]
    take_description(value, old)
    old.replace_all_uses_with(value, replace_graph_outputs=old.is_graph_output())
    name, old.name = old.name, None
    remove_with_unused(node)
    value.name = name
    return new


def remove_with_unused(node: ir.Node) -> None:
    """Remove a node, and what was computed for it alone, in its graph."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        graph = node.graph
        if graph is None or any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
            continue
        if any(o.uses() or o.is_graph_output() for o in node.outputs):
            continue
        sources = {v.producer() for v in node.inputs if v is not None}
        graph.remove(node, safe=True)
        waiting += [s for s in sources if s is not None and s.graph is graph]
