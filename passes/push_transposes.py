"""Transposes that meet again behind elementwise operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.graph import add_initializer, constant, fresh_name
from passes.match import dims, only_user, producer, rank, remove_with_unused
from passes.merge_transposes import permutation
from passes.traits import is_broadcasting, is_unary

DEEPEST = 50


@dataclass(frozen=True)
class PushTransposes(RewriteRule):
    """Work in the layout of the inputs, where that needs fewer Transposes.

    Given:  a = Transpose<p>(x)   b = Relu(a)   y = Transpose<inverse of p>(b)
    Result: y = Relu(x)   also through Add, Mul, Concat ... of several transposed values
    """

    name: ClassVar[str] = "push-transposes"

    def match(self, node: ir.Node) -> bool:
        """A Transpose of what passes Transposes on."""
        value = node.inputs[0] if is_op(node, "Transpose") else None
        return value is not None and _passes(value.producer())

    def check(self, node: ir.Node) -> str | None:
        """More go than come."""
        perm, value = permutation(node), node.inputs[0]
        assert value is not None
        if perm is None:
            return "the permutation is not known"
        if _gain(value, node, perm, DEEPEST) < 0:
            return "no Transposes cancel on the other side"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Turn everything in between."""
        perm, value, old = permutation(node), node.inputs[0], node.outputs[0]
        assert perm is not None
        assert value is not None
        graph = node.graph
        assert graph is not None
        new = _turned(value, node, perm, DEEPEST)
        new.shape, new.type = old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=old.is_graph_output())
        name, old.name = old.name, None
        remove_with_unused(node)
        new.name = name


def _passes(node: ir.Node | None) -> bool:
    return is_unary(node) or is_broadcasting(node) or is_op(node, "Concat")


def _gain(value: ir.Value | None, user: ir.Node, perm: list[int], depth: int) -> int:
    """By how many Transposes fewer there are when `value` is computed in turned form."""
    if value is None or constant(value) is not None:
        fits = value is None or value.shape is None or len(value.shape) <= len(perm)
        return 0 if fits else -DEEPEST
    before = producer(value, "Transpose")
    if before is not None and _cancel(before, perm):
        return 1 if only_user(value) is user else 0
    node = value.producer()
    if depth == 0 or rank(value) != len(perm):
        return -DEEPEST
    if node is None or not _passes(node) or only_user(value) is not user:
        return -1
    if (
        len(node.inputs) > 1
        and not is_unary(node)
        and any(rank(v) != len(perm) and constant(v) is None for v in node.inputs)
    ):
        return -1
    inputs = node.inputs[:1] if is_unary(node) else node.inputs
    return sum(_gain(v, node, perm, depth - 1) for v in inputs)


def _cancel(before: ir.Node, perm: list[int]) -> bool:
    first = permutation(before)
    return first is not None and [first[i] for i in perm] == list(range(len(perm)))


def _turned(value: ir.Value, user: ir.Node, perm: list[int], depth: int) -> ir.Value:
    """`value` with its axes in the order of `perm`; new nodes where old ones are not its own."""
    array = constant(value)
    if array is not None:
        wide = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
        turned = np.ascontiguousarray(wide.transpose(perm))
        return value if array.size == 1 else add_initializer(user.graph, f"{value.name}_t", turned)
    before, node = producer(value, "Transpose"), value.producer()
    if before is not None and _cancel(before, perm):
        assert before.inputs[0] is not None
        return before.inputs[0]
    apart = node is None or not _passes(node) or only_user(value) is not user
    if node is None or apart or _gain(value, user, perm, depth) <= -1:
        return _put(user, ir.node("Transpose", [value], {"perm": perm}), value, perm)
    inputs: list[ir.Value | None] = [
        v if v is None or (is_unary(node) and i) else _turned(v, node, perm, depth - 1)
        for i, v in enumerate(node.inputs)
    ]
    attributes = dict(node.attributes)
    if is_op(node, "Concat"):
        axis = perm.index(node.attributes["axis"].as_int() % len(perm))
        attributes["axis"] = ir.AttrInt64("axis", axis)
    copy = ir.node(node.op_type, inputs, name=fresh_name(_graph(node), node.name or node.op_type))
    copy.attributes.update(attributes)
    return _put(node, copy, value, perm)


def _graph(node: ir.Node) -> ir.Graph | ir.Function:
    assert node.graph is not None
    return node.graph


def _put(place: ir.Node, node: ir.Node, value: ir.Value, perm: list[int]) -> ir.Value:
    """Insert a new node before a place, described as the turned `value`."""
    graph = _graph(place)
    graph.insert_before(place, node)
    node.name = node.name if node.name else fresh_name(graph, f"{value.name}_transpose")
    output, known = node.outputs[0], dims(value)
    output.name, output.type = fresh_name(graph, f"{value.name}_turned"), value.type
    if known is not None and len(known) == len(perm) and value.shape is not None:
        output.shape = ir.Shape([value.shape[i] for i in perm])
    return output
