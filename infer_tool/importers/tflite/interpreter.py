"""Runs a TFLite file on LiteRT; this module lives in the worker's process."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.hybrid import with_real_weights
from infer_tool.importers.tflite.schema import read_file
from infer_tool.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Feeds = Mapping[str, Any]


def open_source(
    source: str,
    folder: Path,  # noqa: ARG001 - the interface of workers
    options: Mapping[str, Any],
) -> tuple[Callable[[Feeds], dict[str, Any]], dict[str, Any]]:
    """Open the file; the facts are the name of the package that runs it."""
    name, interpreter, schema = _modules()
    content = Path(source).read_bytes()
    if options["hybrid"]:
        content = with_real_weights(read_file(content), schema)
    return _Runner(interpreter, content, options).run, {"engine": name}


def _modules() -> tuple[str, Any, Any]:
    """The package's name, its class and the classes of the schema."""
    with quiet():
        if find_spec("ai_edge_litert") is not None:
            from ai_edge_litert import interpreter, schema_py_generated

            return "ai-edge-litert", interpreter.Interpreter, schema_py_generated
        import tensorflow as tf
        from tensorflow.lite.python import schema_py_generated as older

        return "tensorflow", tf.lite.Interpreter, older


class _Runner:
    """Feeds and outputs by the names of the import.

    LiteRT's own defaults: with XNNPACK, which rounds products of integers once, as QuantizeLinear
    does; the kernels it replaces round them twice and differ by one step now and then.
    """

    def __init__(self, interpreter: Any, content: bytes, options: Mapping[str, Any]) -> None:
        self._class, self._content, self._options = interpreter, content, options
        self._states = options["states"]
        self._first = {
            name: np.array(state["first"], state["dtype"]) for name, state in self._states.items()
        }
        self._restart()

    def _restart(self) -> None:
        # What a variable holds at the end is read from a tensor inside the graph.
        self._interpreter = self._class(
            model_content=self._content, num_threads=1,
            experimental_preserve_all_tensors=bool(self._states),
        )  # fmt: skip
        self._now = dict(self._first)
        self._is_new = True

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """One run.

        Raises:
            ModelError: the states are neither the first ones nor those of the last run.

        """
        wanted = {name: feeds.get(name, first) for name, first in self._first.items()}
        if not _equal(wanted, self._now):
            if not _equal(wanted, self._first):
                raise ModelError("LiteRT runs from its first states or on from its last run only")
            self._restart()
        outputs = self._entry(feeds)
        for name, state in self._states.items():
            self._now[name] = outputs[state["output"]] = self._interpreter.get_tensor(
                state["tensor"]
            ).copy()
        return outputs

    def _entry(self, feeds: Feeds) -> dict[str, Any]:
        if self._options["subgraph"]:
            runner = self._interpreter.get_signature_runner(self._options["signature"])
            keys = self._options["keys"]
            results = runner(**{keys[name]: feeds[name] for name in self._options["inputs"]})
            return {name: results[keys[name]] for name in self._options["outputs"]}
        interpreter = self._interpreter
        for name, index in self._options["inputs"].items():
            interpreter.resize_tensor_input(index, feeds[name].shape)
        interpreter.allocate_tensors()
        if self._is_new:
            # Not all kernels find zeros in the variable tensors of a new interpreter.
            interpreter.reset_all_variables()
            self._is_new = False
        for name, index in self._options["inputs"].items():
            interpreter.set_tensor(index, feeds[name])
        interpreter.invoke()
        return {n: interpreter.get_tensor(i).copy() for n, i in self._options["outputs"].items()}


def _equal(a: Feeds, b: Feeds) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in b)
