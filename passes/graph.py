"""Small questions and edits on onnx_ir graphs that several passes share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np

    Array = np.ndarray[Any, Any]


# What one rewrite may add to the file.
MAX_GROWTH_BYTES = 8192


def is_constant(value: ir.Value | None) -> bool:
    """Is it an initialiser that no caller can override? Unlike `constant`, reads no data."""
    if value is None or value.const_value is None or value.is_graph_input():
        return False
    return value.is_initializer()


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initialiser that no caller can override; None for anything else."""
    if value is None or value.const_value is None or not is_constant(value):
        return None
    return value.const_value.numpy()


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
    return _register(graph, fresh_name(graph, name), array)


def become_constant(old: ir.Value, array: Array) -> None:
    """An initialiser takes the users and the name of a node's output, which keeps neither."""
    producer = old.producer()
    assert producer is not None
    assert isinstance(producer.graph, ir.Graph)
    name, old.name = old.name, None
    old.replace_all_uses_with(_register(producer.graph, name or "constant", array))


def replace_constant(node: ir.Node, index: int, array: Array) -> None:
    """Give a node a constant of its own; the old one goes, and leaves its name, when unused."""
    graph, old = node.graph, node.inputs[index]
    assert isinstance(graph, ir.Graph)
    assert old is not None
    node.replace_input_with(index, None)
    name = old.name or "constant"
    if not old.uses() and not old.is_graph_output() and graph.initializers.get(name) is old:
        del graph.initializers[name]
        node.replace_input_with(index, _register(graph, name, array))
    else:
        node.replace_input_with(index, add_initializer(graph, name, array))


def _register(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


class _Names:
    """Names in use in some graphs, and those given since; listed once, when first asked for.

    A list for each new name would be quadratic. Initialisers are looked up as they are now: their
    names become free again.
    """

    def __init__(self, graphs: Iterable[ir.Graph | ir.Function]) -> None:
        self.graphs = WeakSet(graphs)  # a clone refers to these names too: hold no weights for it
        self._known: set[str | None] | None = None

    def give(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`, ... when it is taken; taken from now on."""
        if self._known is None:
            self._known = set(self._list())
        unique, number = name, 0
        while unique in self._known or self._is_initializer(unique):
            number += 1
            unique = f"{name}_{number}"
        self._known.add(unique)
        return unique

    def _list(self) -> Iterator[str | None]:
        for graph in self.graphs:
            yield from (value.name for value in graph.inputs)
            for node in graph:
                yield node.name
                yield from (value.name for value in node.outputs)

    def _is_initializer(self, name: str) -> bool:
        return any(name in g.initializers for g in self.graphs if isinstance(g, ir.Graph))


_NAMES = "infertool.names"


def forget_names(model: ir.Model) -> None:
    """Names may have been given without `fresh_name`: it lists them anew.

    From now on a fresh name is new in all graphs of the model, as a branch must not use a name of
    the graph around it.
    """
    graphs = list(model.graphs())
    names = _Names(graphs)
    for graph in graphs:
        graph.meta[_NAMES] = names


def fresh_name(graph: ir.Graph | ir.Function, name: str) -> str:
    """`name`, or `name_1`, `name_2`, ... when a value or a node has it already."""
    names = graph.meta.get(_NAMES)
    if names is None or graph not in names.graphs:  # a clone brings the names of its original
        names = graph.meta[_NAMES] = _Names([graph, *graph.subgraphs()])
    return str(names.give(name))


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


def with_outputs(node: ir.Node, inputs: Sequence[ir.Value | None], kept: Sequence[int]) -> ir.Node:
    """Put a node with these inputs and only these outputs in the place of one with subgraphs."""
    graph = node.graph
    assert graph is not None
    new = ir.node(node.op_type, inputs, num_outputs=len(kept), name=node.name)
    new.attributes.update(node.attributes)
    graph.insert_before(node, new)
    for index, value in zip(kept, new.outputs, strict=True):
        old = node.outputs[index]
        value.shape, value.type = old.shape, old.type
        old.replace_all_uses_with(value, replace_graph_outputs=old.is_graph_output())
        name, old.name = old.name, None
        value.name = name
    node.attributes.clear()
    graph.remove(node, safe=True)
    return new


def detach_subgraphs(node: ir.Node) -> None:
    """What a removed If or Loop took from outside is not used by it any more."""
    for attribute in node.attributes.values():
        if attribute.type != ir.AttributeType.GRAPH:
            continue
        for inner in attribute.as_graph().all_nodes():
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
