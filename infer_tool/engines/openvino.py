"""OpenVINO on the CPU, computing in float32."""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_runtime.session import load_graph, tensor_info
from infer_tool.engines.common import as_file, check_feeds, check_shapes, installed_version
from infer_tool.extras import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    Shapes = Mapping[str, Sequence[int]]

# Without the hint, processors with bfloat16 compute float32 models in it.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
NOISE = ("Exception from ", "Check '")  # lines about OpenVINO's own source


class OpenVinoEngine:
    """A compiled model on the CPU plugin."""

    name = "openvino"

    def __init__(self, model: str | Path | ir.Model, threads: int, shapes: Shapes) -> None:
        ov = require("openvino", "openvino")
        self.version = str(version())
        # OpenVINO forgets the names of dimensions.
        graph = (model if isinstance(model, ir.Model) else load_graph(model)).graph
        given = [v for v in graph.inputs if v.name not in graph.initializers]
        self.inputs = tuple(tensor_info(v) for v in given)
        self.outputs = tuple(tensor_info(v) for v in graph.outputs)
        self._names = [o.name for o in self.outputs]
        check_shapes(self.inputs, shapes)
        with _own_signal_stack():
            self._compiled = _compile(ov, model, threads, shapes)
        self._places = {info.name: place for place, info in enumerate(self.inputs)}

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            FeedError: a feed does not fit the model.
            ModelError: the engine fails.

        """
        check_feeds(self.inputs, feeds)  # OpenVINO itself converts types without a word
        try:
            values = self._compiled({self._places[n]: v for n, v in feeds.items()})
        except (RuntimeError, ValueError, TypeError) as error:
            raise ModelError(f"OpenVINO cannot run the model: {_why(error)}") from error
        return {name: values[place].copy() for place, name in enumerate(self._names)}


def open_model(
    model: str | Path | ir.Model,
    threads: int,
    optimize: bool,  # noqa: ARG001 - compiling is optimising
    shapes: Shapes,
    lean: bool = False,  # noqa: ARG001 - weights are always repacked
) -> OpenVinoEngine:
    """Load a model."""
    return OpenVinoEngine(model, threads, shapes)


def version() -> str | None:
    """The installed version, or None."""
    return installed_version("openvino")


class _Stack(ctypes.Structure):
    """stack_t of <signal.h>."""

    _fields_ = (
        ("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t),
    )  # fmt: skip


@contextmanager
def _own_signal_stack() -> Iterator[None]:
    """Keep the stack that signal handlers run on.

    OpenVINO puts one of 11 kB in its place, on which Python's handlers crash: a time limit or
    Ctrl-C would end the process.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


def _compile(ov: Any, model: str | Path | ir.Model, threads: int, shapes: Shapes) -> Any:
    label = "the model" if isinstance(model, ir.Model) else str(model)
    options: dict[str, Any] = dict(PRECISION)
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        with as_file(model) as path:
            core = ov.Core()
            network = core.read_model(str(path))
            if shapes:
                network.reshape({name: list(shape) for name, shape in shapes.items()})
            return core.compile_model(network, "CPU", options)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"{label}: OpenVINO refuses it: {_why(error)}") from error


def _why(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(NOISE)]
    return (said or lines or [type(error).__name__])[0]
