"""TensorFlow's side of its importer: opens a source, converts it and runs it.

Runs in a process of its own (`infer_tool.worker`). Leaves model.onnx or model.tflite in the folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.importers.tensorflow_source import prepare
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
        self.name = name
        self._source, self._loaded = source, loaded  # which owns the variables
        self.function = loaded.signatures[name]
        if options["kind"] != "graph_def":
            self._reshape(options["input"])
        count = len(self.function.inputs) - len(self.function.captured_inputs)
        keywords = sorted(self.function.structured_input_signature[1])
        tensors = [t.name for t in self.function.inputs[:count]]
        self.inputs = dict(zip(tensors, keywords, strict=True))
        results = {key: self._output_name(key) for key in sorted(self.function.structured_outputs)}
        self._results = self._chosen(results, options)
        tensors = [t.name for t in self.function.outputs]
        self.outputs = {
            tensor: results[key]
            for tensor, key in zip(tensors, results, strict=True)
            if key in self._results
        }

    def _reshape(self, items: list[Mapping[str, Any]]) -> None:
        """Shapes that the user states take the place of the signature's."""
        import tensorflow as tf

        if not items:
            return
        specs = dict(self.function.structured_input_signature[1])
        for item in items:
            name, sizes = item["name"], [d if isinstance(d, int) else None for d in item["shape"]]
            if name not in specs:
                shown = ", ".join(sorted(specs))
                raise UsageError(f"--input {name}: {self._source} has {shown}")
            if not specs[name].shape.is_compatible_with(sizes):
                shown = specs[name].shape
                raise UsageError(f"--input {name}: {self._source} has it with shape {shown}")
            specs[name] = tf.TensorSpec(sizes, specs[name].dtype, name)
        original = self.function
        narrowed = tf.function(lambda **feeds: original(**feeds), autograph=False)
        self.function = narrowed.get_concrete_function(**specs)

    def _output_name(self, key: str) -> str:
        """An input and an output may share a name in a signature, but not in ONNX."""
        return f"{key}_output" if key in self.inputs.values() else key

    def _chosen(self, results: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, str]:
        wanted = options["output_name"] or list(results.values())
        for name in wanted:
            if name not in results.values():
                shown = ", ".join(results.values())
                raise UsageError(f"--output-name {name}: {self._source} has {shown}")
        return {key: name for key, name in results.items() if name in wanted}

    def facts(self) -> dict[str, Any]:
        """Names of the ends, in order."""
        return {"inputs": list(self.inputs.values()), "outputs": list(self.outputs.values())}

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs as arrays, by name."""
        import tensorflow as tf

        results = self.function(**{name: tf.constant(v) for name, v in feeds.items()})
        return {name: results[key].numpy() for key, name in self._results.items()}


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

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved), signature_keys=[signature.name]
    )
    (folder / "model.tflite").write_bytes(converter.convert())


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
