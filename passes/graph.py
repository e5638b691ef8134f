"""Small questions and edits on onnx_ir graphs that several passes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initialiser that no caller can override; None for anything else."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy() if value.is_initializer() else None


def shared_reason(value: ir.Value) -> str | None:
    """Why a producer must not be changed: others see its value."""
    if value.is_graph_output():
        return f"{value.name} is a graph output"
    if (count := len(list(value.uses()))) != 1:
        return f"{value.name} is used {count} times"
    return None


def add_initializer(graph: ir.Graph | ir.Function | None, name: str, array: Array) -> ir.Value:
    """A new constant in a graph, under a name that nobody has."""
    assert isinstance(graph, ir.Graph)
    unique = fresh_name(graph, name)
    tensor = ir.tensor(array, name=unique)
    value = ir.Value(
        name=unique,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def fresh_name(graph: ir.Graph | ir.Function, name: str) -> str:
    """`name`, or `name_1`, `name_2`, ... when the graph has it already."""
    taken = _taken(graph)
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


class _Taken:
    """Looks names up without listing them: a list for each new name would be quadratic."""

    def __init__(self, graph: ir.Graph | ir.Function) -> None:
        self._graph = graph
        cached = graph.meta.get("infertool.names")
        if cached is None or cached[0] != len(graph):
            names = {o.name for n in graph.all_nodes() for o in n.outputs}
            names |= {v.name for v in graph.inputs}
            cached = (len(graph), names)
            graph.meta["infertool.names"] = cached
        self._names = cached[1]

    def __contains__(self, name: str) -> bool:
        return name in self._names or name in getattr(self._graph, "initializers", {})


def _taken(graph: ir.Graph | ir.Function) -> _Taken:
    return _Taken(graph)


def replace_value(old: ir.Value, new: ir.Value) -> bool:
    """Let every user of `old` use `new`; False when a graph output forbids it.

    A graph output keeps its name: the new value takes it over, unless it is an input, an
    initialiser, another output or a value of an outer graph, which cannot be renamed.
    """
    if not old.is_graph_output():
        old.replace_all_uses_with(new)
        return True
    producer, node = new.producer(), old.producer()
    same_graph = producer is not None and node is not None and producer.graph is node.graph
    if not same_graph or new.is_graph_output():
        return False
    name = old.name
    take_description(new, old)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name
    return True


def take_description(new: ir.Value, old: ir.Value) -> None:
    """Shape and type of `old` for `new`, where they are known; the shape of a scalar is empty."""
    if old.shape is not None:
        new.shape = old.shape
    if old.type is not None:
        new.type = old.type


def remove_node(node: ir.Node) -> None:
    """Remove a node whose outputs nobody uses any more."""
    assert node.graph is not None
    node.graph.remove(node, safe=True)
