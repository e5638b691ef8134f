"""Inside TensorFlow's process: graphs without variables, their ends and how they are saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PLACEHOLDER = "Placeholder"
NO_RESULTS = {"Const", PLACEHOLDER, "PlaceholderWithDefault"}


@dataclass(frozen=True)
class Ends:
    """Inputs and outputs: what the user calls them -> name of the tensor."""

    inputs: dict[str, str]
    outputs: dict[str, str]


def ends_of(graph: Any, source: str, options: Mapping[str, Any]) -> Ends:
    """Placeholders, and what nobody uses, unless the user names others.

    An input that the user names becomes a placeholder of this shape and type, in place.

    Raises:
        UsageError: the graph has no such node.
        ModelError: it has no inputs or no outputs.

    """
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}
    for item in options["input"]:
        _place(nodes, item, source)
    with tf.Graph().as_default() as loaded:
        tf.import_graph_def(graph, name="")
    outputs = {n: _tensor(n, loaded, source) for n in options["output_name"]} or _sinks(loaded)
    needed = _needed(loaded, outputs.values())
    inputs = [n for n, node in nodes.items() if node.op == PLACEHOLDER and n in needed]
    if not inputs or not outputs:
        what = "output; name one with --output-name" if inputs else "input; name one with --input"
        raise ModelError(f"{source}: the graph shows no {what}")
    return Ends({n: f"{n}:0" for n in inputs}, outputs)


def _tensor(name: str, graph: Any, source: str) -> str:
    node, _, index = name.partition(":")
    tensor = f"{node}:{index or 0}"
    try:
        graph.get_tensor_by_name(tensor)
    except (KeyError, ValueError) as error:
        known = ", ".join(_sinks(graph))
        raise UsageError(
            f"--output-name {name}: {source} has no such node; it ends in {known}"
        ) from error
    return tensor


def _place(nodes: Mapping[str, Any], item: Mapping[str, Any], source: str) -> None:
    import tensorflow as tf

    name = item["name"].removesuffix(":0")
    if name not in nodes:
        placeholders = ", ".join(n for n, node in nodes.items() if node.op == PLACEHOLDER)
        raise UsageError(f"--input {name}: {source} has no such node; placeholders: {placeholders}")
    node = nodes[name]
    node.op = PLACEHOLDER
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = tf.as_dtype(item["dtype"]).as_datatype_enum
    sizes = [d if isinstance(d, int) else None for d in item["shape"]]
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(sizes).as_proto())


def _sinks(graph: Any) -> dict[str, str]:
    """Tensors of the nodes that no other node takes anything from."""
    return {
        tensor.name.removesuffix(":0"): tensor.name
        for op in graph.get_operations()
        if op.type not in NO_RESULTS and not any(t.consumers() for t in op.outputs)
        for tensor in op.outputs
    }


def _needed(graph: Any, outputs: Iterable[str]) -> set[str]:
    """Names of the nodes that the outputs are computed from."""
    needed: set[str] = set()
    rest = [graph.get_tensor_by_name(name).op for name in outputs]
    while rest:
        op = rest.pop()
        if op.name not in needed:
            needed.add(op.name)
            rest.extend((*(t.op for t in op.inputs), *op.control_inputs))
    return needed


def resave(graph: Any, ends: Ends, folder: Path) -> None:
    """As a SavedModel with one signature; each of its outputs has a tensor of its own."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as target, v1.Session(graph=target) as session:
        tf.import_graph_def(graph, name="")
        inputs = {key: target.get_tensor_by_name(name) for key, name in ends.inputs.items()}
        outputs = {
            key: tf.identity(target.get_tensor_by_name(name)) for key, name in ends.outputs.items()
        }
        signature = v1.saved_model.predict_signature_def(inputs, outputs)
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
