"""SavedModel or .keras to ONNX, run as a process of its own: `SOURCE FOLDER`.

TensorFlow and tf2onnx print, and may end the process; neither may happen to the command that asked.
Leaves FOLDER/model (a SavedModel that loads) and FOLDER/model.onnx, or a reason on stderr.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

OPSET = 18  # the newest that tf2onnx writes
SIGNATURE = "serving_default"
MUST_COMPILE = "_XlaMustCompile"


def main(source: Path, folder: Path) -> None:
    """Convert; any exception ends the process, its last line is the reason."""
    import onnx
    import tensorflow as tf
    from tf2onnx import tf_loader
    from tf2onnx.convert import _convert_common

    _register_erfc()
    is_keras = source.is_file()
    _scrub(_exported(source, folder / "export") if is_keras else source, folder / "model")
    loaded = tf.saved_model.load(str(folder / "model"))
    function = signature(loaded)
    inputs, outputs = _tensor_names(function)
    graph = tf_loader.from_function(function, list(inputs), list(outputs))
    proto, _ = _convert_common(
        graph, name="model", opset=OPSET, input_names=list(inputs), output_names=list(outputs)
    )
    _rename(proto.graph, {**inputs, **outputs})
    if is_keras:
        _name_batch(proto.graph)
    onnx.save(proto, folder / "model.onnx")


def signature(loaded: Any) -> Any:
    """The function that a SavedModel serves.

    Raises:
        ValueError: there is none, or several and none is the default.

    """
    found = loaded.signatures
    if SIGNATURE in found:
        return found[SIGNATURE]
    if len(found) == 1:
        return next(iter(found.values()))
    raise ValueError(f"no signature {SIGNATURE!r}; there are {sorted(found)}")


def input_names(function: Any) -> list[str]:
    """Keywords of a signature, in the order of its tensors."""
    return sorted(function.structured_input_signature[1])


def output_name(name: str, inputs: list[str]) -> str:
    """An input and an output may share a name in a signature, but not in ONNX."""
    return f"{name}_output" if name in inputs else name


def _exported(source: Path, folder: Path) -> Path:
    import keras  # type: ignore[import-untyped]

    model = keras.saving.load_model(source, compile=False, safe_mode=True)
    model.export(str(folder), format="tf_saved_model", verbose=False)
    return folder


def _scrub(source: Path, target: Path) -> None:
    """Copy a SavedModel without what keeps it from loading or converting.

    Slot variables of old optimisers break loading; functions that must be compiled by XLA, such as
    Keras's grouped convolutions, are not inlined and stay in the graph as calls.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((source / "saved_model.pb").read_bytes())
    for meta in model.meta_graphs:
        for node in meta.object_graph_def.nodes:
            del node.slot_variables[:]
        functions = meta.graph_def.library.function
        holders = [*functions, *meta.graph_def.node, *(n for f in functions for n in f.node_def)]
        for holder in holders:
            holder.attr.pop(MUST_COMPILE, None)
    target.mkdir()
    (target / "saved_model.pb").write_bytes(model.SerializeToString())
    for part in source.iterdir():
        if part.name != "saved_model.pb":
            (target / part.name).symlink_to(part.resolve())


def _tensor_names(function: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Tensor names of the graph, with the names that the signature gives them."""
    import tensorflow as tf

    keywords = input_names(function)
    tensors = [t.name for t in function.inputs if t.dtype != tf.resource]
    results = [output_name(n, keywords) for n in sorted(function.structured_outputs)]
    return (
        dict(zip(tensors, keywords, strict=True)),
        dict(zip((t.name for t in function.outputs), results, strict=True)),
    )


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give inputs and outputs the names of the signature; who had one of them gets another."""
    inner = {n for node in graph.node for n in (*node.input, *node.output)} - set(names)
    renamed = names | {n: f"{n}__inner" for n in inner & set(names.values())}
    for holder in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        holder.name = renamed.get(holder.name, holder.name)
    for node in graph.node:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        node.output[:] = [renamed.get(n, n) for n in node.output]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename_uses(subgraph, renamed)


def _name_batch(graph: Any) -> None:
    """The first dimension of what Keras takes and gives is the batch, where it is dynamic."""
    for value in (*graph.input, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and dimensions[0].WhichOneof("value") != "dim_value":
            dimensions[0].dim_param = "batch"


def _rename_uses(graph: Any, renamed: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename_uses(subgraph, renamed)
    for value in graph.output:
        value.name = renamed.get(value.name, value.name)


def _register_erfc() -> None:
    """tf2onnx copies Erfc through as an operator that ONNX does not have: it is 1 - Erf."""
    import numpy as np
    from tf2onnx import utils
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        """Of the exact GELU."""

        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            """Replace the node."""
            dtype, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
            (source,), outputs, name = node.input, list(node.output), node.name
            ctx.remove_node(name)
            one = np.ones((), utils.map_onnx_to_numpy_type(dtype))
            left = ctx.make_const(utils.make_name("one"), one).output[0]
            right = ctx.make_node("Erf", [source]).output[0]
            ctx.make_node(
                "Sub", [left, right], name=name, outputs=outputs, shapes=[shape], dtypes=[dtype]
            )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
