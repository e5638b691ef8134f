"""Turning the nodes of a region in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from passes.base import is_op
from passes.graph import add_initializer, constant, fresh_name, replace_value
from passes.match import producer, remove_with_unused
from passes.merge_transposes import permutation
from passes.turn import Perm, Turned, inverse, turned_array

if TYPE_CHECKING:
    from passes.regions import Region


def turn_region(region: Region) -> None:
    """Let the chosen nodes work in the other order; Transposes stand where it begins and ends.

    A value that is turned gets another name: the old one is that of the value it was.
    """
    before: dict[ir.Value, ir.Value] = {}
    left_over: set[ir.Node] = set()
    for node, turned in region.turned.items():
        for index in turned.data:
            value = node.inputs[index]
            if value is not None and value.producer() not in region.turned:
                if value not in before:
                    before[value] = _turned_value(value, region.perm, node)
                node.replace_input_with(index, before[value])
                left_over |= {v for v in (value.producer(),) if v is not None}
        _rewrite(node, turned)
    for node, turned in region.turned.items():
        for output in () if turned.keeps else node.outputs:
            left_over |= _give_back(output, region)
    for node in left_over:
        if is_op(node, "Transpose"):
            remove_with_unused(node)


def _turned_value(value: ir.Value, perm: Perm, user: ir.Node) -> ir.Value:
    """`value` turned: a constant, what a Transpose before it read, or a new Transpose of it."""
    array = constant(value)
    if array is not None:
        if array.size == 1:
            return value
        return add_initializer(user.graph, f"{value.name}_turned", turned_array(array, perm))
    before = producer(value, "Transpose")
    if before is not None and permutation(before) == list(inverse(perm)):
        assert before.inputs[0] is not None
        return before.inputs[0]
    output = _transpose(value, perm, _graph(user))
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


def _give_back(output: ir.Value, region: Region) -> set[ir.Node]:
    """Who reads an output in the old order gets it; returns the Transposes that nobody needs."""
    idle, others = set(), []
    for user, index in list(output.uses()):
        if user not in region.turned or index not in region.turned[user].data:
            others.append((user, index))
    kept = _kept(output, region.perm)
    for user, index in others:
        back = is_op(user, "Transpose") and permutation(user) == list(region.perm)
        if back and _take_over(user.outputs[0], output):
            idle.add(user)
        else:
            user.replace_input_with(index, kept)
    node = kept.producer()
    assert node is not None
    return idle | {node}


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
