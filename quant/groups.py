"""Values whose channels can be scaled together: layers write them, layers read them.

A positive factor for each channel goes through what is in `CARRIERS` and through sums of values
that have the same factors, as along the residual connections of a network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from passes.base import Refusal, is_op
from passes.graph import constant, replace_constant
from passes.match import dims
from passes.weights import channels, fold_affine
from quant.moments import rows_of, weight_of
from quant.selection import LINEAR, weight_reason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import numpy as np
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

CARRIERS = {
    "Relu", "LeakyRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
}  # fmt: skip


@dataclass
class Group:
    """Values of one set of factors, and the layers around them."""

    values: list[ir.Value] = field(default_factory=list)
    writers: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    reason: str | None = None  # why it cannot be scaled

    @property
    def axis(self) -> int:
        """Where the channels of the values are."""
        return 1 if is_op(self.writers[0], "Conv") else -1

    def scale(self, factors: Array) -> None:
        """Divide the values by `factors`, [channels]; the outputs of the readers stay."""
        for node in self.writers:
            fold_affine(node, 1 / factors, None)
        for node in self.readers:
            rows, weight = rows_of(node, weight_array(node)), weight_array(node)
            scaled = by_input_channel(node) * factors.reshape(len(rows), 1, -1, 1)
            new = weight_of(node, scaled.reshape(rows.shape), weight.shape)
            replace_constant(node, 1, new.astype(weight.dtype))


def weight_array(node: ir.Node) -> Array:
    """The weight of a layer that `scalable_reason` has nothing against."""
    found = constant(node.inputs[1])
    assert found is not None
    return found


def by_input_channel(node: ir.Node) -> Array:
    """The weight as [groups, outputs, inputs of a group, taps]."""
    weight = weight_array(node)
    rows = rows_of(node, weight)
    inputs = weight.shape[1] if is_op(node, "Conv") else rows.shape[2]
    return rows.reshape(*rows.shape[:2], inputs, -1)


def groups(model: ir.Model, exclude: Collection[str]) -> tuple[list[Group], list[Refusal]]:
    """All groups between layers, in graph order, and why some values cannot be scaled."""
    joined = _Joined()
    for node in model.graph:
        if is_op(node, *CARRIERS) and node.inputs[0] is not None:
            joined.join(node.inputs[0], node.outputs[0])
        elif _is_plain_sum(node):
            for value in node.inputs:
                assert value is not None
                joined.join(value, node.outputs[0])
    found: dict[ir.Value, Group] = {}
    for node in model.graph:
        for value in node.outputs:
            _add(found.setdefault(joined.root(value), Group()), value, model, exclude)
    between = [g for g in found.values() if g.writers and g.readers]
    for group in between:
        group.reason = group.reason or _shape_reason(group)
    refused = [
        Refusal(g.readers[0].name or "?", g.readers[0].op_type, f"not equalized: {g.reason}")
        for g in between
        if g.reason is not None
    ]
    return [g for g in between if g.reason is None], refused


def _add(group: Group, value: ir.Value, model: ir.Model, exclude: Collection[str]) -> None:
    group.values.append(value)
    for reason in _reasons(group, value, model, exclude):
        group.reason = group.reason or reason


def _shape_reason(group: Group) -> str | None:
    for value in group.values:
        shape = dims(value)
        if shape is None or shape[group.axis] != width(group):
            return f"the channels of {value.name} are not known to be {width(group)}"
    return None


def _reasons(
    group: Group, value: ir.Value, model: ir.Model, exclude: Collection[str]
) -> Iterator[str]:
    """Enter the layers around a value into the group; what speaks against scaling it."""
    node = value.producer()
    assert node is not None
    if is_op(node, *LINEAR):
        group.writers.append(node)
        yield from scalable_reason(node, exclude)
    elif not _carries(node):
        yield f"{value.name} is made by {node.op_type}"
    elif any(v is not None and v.producer() is None for v in node.inputs[:1]):
        yield f"{node.inputs[0].name if node.inputs[0] else '?'} is a graph input"
    if value.is_graph_output():
        yield f"{value.name} is a graph output"
    for user, index in value.uses():
        if user.graph is not model.graph:
            yield f"{value.name} is read in a branch"
        elif is_op(user, *LINEAR) and index == 0:
            group.readers.append(user)
            yield from scalable_reason(user, exclude)
        elif not _carries(user):
            yield f"{value.name} is read by {user.op_type}"
    kinds = {is_op(n, "Conv") for n in (*group.writers, *group.readers)}
    if len(kinds) > 1:
        yield f"{value.name} goes from a Conv to a product"


def scalable_reason(node: ir.Node, exclude: Collection[str]) -> Iterator[str]:
    """What speaks against changing the weight of a layer."""
    if node.name in exclude:
        yield f"{node.name} is excluded by the user"
    if (reason := weight_reason(node)) is not None:
        yield reason
        return
    weight = node.inputs[1]
    if weight is not None and len(list(weight.uses())) > 1:
        yield f"its weight {weight.name} is shared"


def _carries(node: ir.Node) -> bool:
    return is_op(node, *CARRIERS) or _is_plain_sum(node)


def _is_plain_sum(node: ir.Node) -> bool:
    """An Add of two computed values with as many axes as its result."""
    if not is_op(node, "Add"):
        return False
    computed = all(v is not None and v.producer() is not None for v in node.inputs)
    return computed and len({len(s) if (s := dims(v)) else 0 for v in node.inputs}) == 1


class _Joined:
    """Disjoint sets of values."""

    def __init__(self) -> None:
        self._next: dict[ir.Value, ir.Value] = {}

    def root(self, value: ir.Value) -> ir.Value:
        while value in self._next:
            value = self._next[value]
        return value

    def join(self, a: ir.Value, b: ir.Value) -> None:
        a, b = self.root(a), self.root(b)
        if a is not b:
            self._next[b] = a


def width(group: Group) -> int:
    """Number of channels."""
    return channels(group.writers[0])
