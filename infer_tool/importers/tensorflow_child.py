"""TensorFlow's side of its importer: opens a source, converts it and runs it.

Runs in a process of its own (`infer_tool.worker`). Leaves model.onnx or model.tflite in the folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.importers.tensorflow_graph import Ends, resave
from infer_tool.importers.tensorflow_source import DEFAULT, prepare
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OPSET = 18  # the newest that tf2onnx writes
Run = Any


def open_source(
    source: str, folder: Path, options: Mapping[str, Any]
) -> tuple[Run, dict[str, Any]]:
    """Convert by the first of `options["routes"]` that can; facts say which, and why not others.

    Raises:
        UsageError: an option names what the source has not.
        ModelError: TensorFlow cannot load it.

    """
    import tensorflow as tf

    saved, name = prepare(source, folder, options)
    signature = Signature(tf.saved_model.load(str(saved)), name, source, options)
    refused: dict[str, str] = {}
    for route in options["routes"]:
        try:
            ROUTES[route](signature, saved, folder)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - said to the parent
            # Converters raise classes of many packages; all of them mean that they cannot.
            refused[route] = reason(error)
        else:
            return signature.run, {"route": route, "refused": refused, **signature.facts()}
    return signature.run, {"route": "", "refused": refused, **signature.facts()}


class Signature:
    """A function of a SavedModel with the names that its users know."""

    def __init__(self, loaded: Any, name: str, source: str, options: Mapping[str, Any]) -> None:
        self.name, self.loaded = name, loaded  # which owns the variables
        self.function = loaded.signatures[name]
        keywords = sorted(self.function.structured_input_signature[1])
        # An input and an output may share a name in a signature, but not in ONNX.
        self._keys = {
            f"{key}_output" if key in keywords else key: key
            for key in sorted(self.function.structured_outputs)
        }
        self.is_part = options["kind"] != "graph_def" and self._narrow(source, options)
        count = len(self.function.inputs) - len(self.function.captured_inputs)
        tensors = [t.name for t in self.function.inputs[:count]]
        self.inputs = dict(zip(tensors, keywords, strict=True))
        tensors = [t.name for t in self.function.outputs]
        self.outputs = dict(zip(tensors, self._keys, strict=True))

    def _narrow(self, source: str, options: Mapping[str, Any]) -> bool:
        """To the outputs and the shapes that the user states; whether there are such."""
        import tensorflow as tf

        specs = dict(self.function.structured_input_signature[1])
        for item in options["input"]:
            specs[item["name"]] = _stated(item, specs, source)
        for name in options["output_name"]:
            if name not in self._keys:
                shown = ", ".join(self._keys)
                raise UsageError(f"--output-name {name}: {source} has {shown}")
        if options["output_name"]:
            self._keys = {n: k for n, k in self._keys.items() if n in options["output_name"]}
        elif not options["input"]:
            return False
        whole, keys = self.function, list(self._keys.values())

        def part(**feeds: Any) -> dict[str, Any]:
            results = whole(**feeds)
            return {key: results[key] for key in keys}

        self.function = tf.function(part, autograph=False).get_concrete_function(**specs)
        return True

    def facts(self) -> dict[str, Any]:
        """Names of the ends, in order."""
        return {"inputs": list(self.inputs.values()), "outputs": list(self.outputs.values())}

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs as arrays, by name."""
        import tensorflow as tf

        results = self.function(**{name: tf.constant(v) for name, v in feeds.items()})
        return {name: results[key].numpy() for name, key in self._keys.items()}


def _stated(item: Mapping[str, Any], specs: Mapping[str, Any], source: str) -> Any:
    import tensorflow as tf

    name, sizes = item["name"], [d if isinstance(d, int) else None for d in item["shape"]]
    if name not in specs:
        shown = ", ".join(sorted(specs))
        raise UsageError(f"--input {name}: {source} has {shown}")
    if not specs[name].shape.is_compatible_with(sizes):
        raise UsageError(f"--input {name}: {source} has it with shape {specs[name].shape}")
    return tf.TensorSpec(sizes, specs[name].dtype, name)


def _by_tf2onnx(signature: Signature, _: Path, folder: Path) -> None:
    import onnx
    from tf2onnx import tf_loader
    from tf2onnx.convert import _convert_common

    from infer_tool.importers.tf2onnx_repairs import register_repairs

    register_repairs()
    inputs, outputs = signature.inputs, signature.outputs
    graph = tf_loader.from_function(signature.function, list(inputs), list(outputs))
    proto, _ = _convert_common(
        graph, name="model", opset=OPSET, input_names=list(inputs), output_names=list(outputs)
    )
    _rename(proto.graph, {**inputs, **outputs})
    onnx.save(proto, folder / "model.onnx")


def _by_tflite(signature: Signature, saved: Path, folder: Path) -> None:
    import tensorflow as tf

    name = signature.name
    if signature.is_part:
        saved, name = folder / "part", DEFAULT
        _save_part(signature, saved)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[name])
    (folder / "model.tflite").write_bytes(converter.convert())


def _save_part(signature: Signature, folder: Path) -> None:
    """Without what the chosen outputs do not need: the converter refuses unknown dead code too."""
    import tensorflow as tf
    from tf2onnx import tf_loader

    inputs, outputs = signature.inputs, signature.outputs
    graph = tf_loader.from_function(signature.function, list(inputs), list(outputs))
    nodes = [tensor.rpartition(":")[0] for tensor in outputs]
    graph = tf.compat.v1.graph_util.extract_sub_graph(graph, nodes)
    ends = Ends({v: k for k, v in inputs.items()}, {v: k for k, v in outputs.items()})
    resave(graph, ends, folder)


ROUTES = {"tf2onnx": _by_tf2onnx, "tflite": _by_tflite}


def _rename(graph: Any, names: dict[str, str]) -> None:
    """Give inputs and outputs the names of the signature; who had one of them gets another."""
    inner = {n for node in graph.node for n in (*node.input, *node.output)} - set(names)
    renamed = names | {n: f"{n}__inner" for n in inner & set(names.values())}
    for holder in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        holder.name = renamed.get(holder.name, holder.name)
    for node in graph.node:
        node.output[:] = [renamed.get(n, n) for n in node.output]
    _rename_uses(graph, renamed)


def _rename_uses(graph: Any, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                _rename_uses(subgraph, renamed)
                for value in subgraph.output:
                    value.name = renamed.get(value.name, value.name)
