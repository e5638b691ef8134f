"""Runs a TFLite file on LiteRT; this module lives in the worker's process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from infer_tool.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Feeds = Mapping[str, Any]


def open_source(
    source: str,
    folder: Path,
    options: Mapping[str, Any],  # noqa: ARG001 - the worker's interface
) -> tuple[Callable[[Feeds], dict[str, Any]], dict[str, Any]]:
    """Open the file; the facts are the name of the package that runs it."""
    name, module = _module()
    runner = _Runner(module, source, options)
    return runner.run, {"engine": name}


def _module() -> tuple[str, Any]:
    with quiet():
        if find_spec("ai_edge_litert") is not None:
            from ai_edge_litert import interpreter

            return "ai-edge-litert", interpreter
        import tensorflow as tf

        return "tensorflow", tf.lite


class _Runner:
    """Feeds and outputs by the names of the import."""

    def __init__(self, module: Any, source: str, options: Mapping[str, Any]) -> None:
        self._module, self._source = module, source
        self._inputs, self._outputs = options["inputs"], options["outputs"]
        self._open()

    def _open(self) -> None:
        self._interpreter = self._module.Interpreter(self._source, num_threads=1)

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """One run."""
        interpreter = self._interpreter
        for name, index in self._inputs.items():
            interpreter.resize_tensor_input(index, feeds[name].shape)
        interpreter.allocate_tensors()
        for name, index in self._inputs.items():
            interpreter.set_tensor(index, feeds[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(i) for name, i in self._outputs.items()}
