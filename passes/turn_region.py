"""Turning the nodes of a region in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from passes.base import is_op
from passes.graph import add_initializer, constant, fresh_name, replace_value
from passes.match import producer, remove_with_unused
from passes.merge_transposes import permutation
from passes.permutations import Perm, inverse, is_still, turned_array, turned_by

if TYPE_CHECKING:
    from passes.regions import Region
    from passes.turn import Turned


def turn_region(region: Region) -> None:
    """Let the chosen nodes work in the other order; Transposes stand where it begins and ends.

    A value that is turned gets another name: the old one is that of the value it was.
    """
    before: dict[ir.Value, ir.Value] = {}
    idle: set[ir.Node | None] = set()
    for node, turned in region.turned.items():
        for index in () if is_still(turned.reads) else turned.data:
            value = node.inputs[index]
            if value is not None and value.producer() not in region.turned:
                if value not in before:
                    before[value] = _turned_value(value, turned.reads, node)
                node.replace_input_with(index, before[value])
                idle.add(value.producer())
        _rewrite(node, turned)
    for node, turned in region.turned.items():
        for output in () if is_still(turned.gives) else node.outputs:
            idle |= _give_back(output, turned.gives, region)
    for left in idle:
        if left is not None and is_op(left, "Transpose"):
            remove_with_unused(left)


def _turned_value(value: ir.Value, perm: Perm, user: ir.Node) -> ir.Value:
    """`value` turned: a constant, or a Transpose of what a Transpose before it read."""
    array = constant(value)
    if array is not None:
        if array.size == 1:
            return value
        return add_initializer(user.graph, f"{value.name}_turned", turned_array(array, perm))
    source, total, before = value, perm, producer(value, "Transpose")
    first = None if before is None else permutation(before)
    if before is not None and first is not None and before.inputs[0] is not None:
        source, total = before.inputs[0], tuple(turned_by(first, perm))
        if is_still(total):
            return source
    output = _transpose(source, total, _graph(user))
    output.name = fresh_name(_graph(user), f"{value.name}_turned")
    output.type, output.shape = value.type, _turned_shape(value, perm)
    return output


def _transpose(value: ir.Value, perm: Perm, graph: ir.Graph) -> ir.Value:
    """The result, which has no name yet, of a new Transpose right behind the value's producer."""
    maker = value.producer()
    node = ir.node("Transpose", [value], {"perm": list(perm)})
    node.name = fresh_name(graph, f"{value.name}_transpose")
    if maker is not None and maker.graph is graph:
        graph.insert_after(maker, node)
    else:
        graph.insert_before(graph[0], node)
    return node.outputs[0]


def _turned_shape(value: ir.Value, perm: Perm) -> ir.Shape | None:
    return None if value.shape is None else ir.Shape([value.shape[i] for i in perm])


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _rewrite(node: ir.Node, turned: Turned) -> None:
    """Attributes and small constants of the turned form."""
    for name, number in turned.attributes.items():
        kind = ir.AttrInt64s if isinstance(number, list) else ir.AttrInt64
        node.attributes[name] = kind(name, number)
    for index, vector in turned.vectors.items():
        if vector is None:
            if index < len(node.inputs):
                node.replace_input_with(index, None)
            continue
        node.resize_inputs(max(len(node.inputs), index + 1))
        old = constant(node.inputs[index])
        new = np.array(vector, np.int64 if old is None else old.dtype)
        name = f"{node.outputs[0].name}_turned"
        is_number = old is not None and old.ndim == 0
        value = add_initializer(node.graph, name, new.reshape(() if is_number else -1))
        node.replace_input_with(index, value)
    used = [index for index, value in enumerate(node.inputs) if value is not None]
    node.resize_inputs(max(used) + 1)


def _give_back(output: ir.Value, perm: Perm, region: Region) -> set[ir.Node]:
    """Who reads an output in the old order gets it; returns the Transposes that nobody needs."""
    others = [
        (user, index)
        for user, index in output.uses()
        if user not in region.turned or index not in region.turned[user].data
    ]
    kept = _kept(output, perm)
    idle = {n for n in (kept.producer(),) if n is not None}
    for user, index in others:
        second = permutation(user) if is_op(user, "Transpose") else None
        rest = None if second is None else turned_by(inverse(perm), second)
        if rest is not None and is_still(rest) and _take_over(user.outputs[0], output):
            idle.add(user)
        elif rest is not None and not is_still(rest):
            user.replace_input_with(index, output)
            user.attributes["perm"] = ir.AttrInt64s("perm", rest)
        else:
            user.replace_input_with(index, kept)
    return idle


def _take_over(old: ir.Value, new: ir.Value) -> bool:
    """As `replace_value`; a graph output of which no shape is declared stays so."""
    shape, is_output = old.shape, old.is_graph_output()
    if not replace_value(old, new):
        return False
    if is_output:
        new.shape = shape
    return True


def _kept(output: ir.Value, perm: Perm) -> ir.Value:
    """A new value in the old order, with the old name; a graph output stays one."""
    maker = output.producer()
    assert maker is not None
    graph, name = _graph(maker), output.name
    kept = _transpose(output, inverse(perm), graph)
    kept.type, kept.shape = output.type, output.shape
    for index, value in enumerate(graph.outputs):
        if value is output:
            graph.outputs[index] = kept
    output.name = fresh_name(graph, f"{name}_turned")
    kept.name = name
    output.shape = _turned_shape(output, perm)
    return kept
