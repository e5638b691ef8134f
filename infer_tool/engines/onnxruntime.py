"""ONNX Runtime on the CPU."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import TensorInfo
from infer_runtime.errors import ModelError
from infer_tool.engines.common import as_file, check_feeds, first_line, installed_version
from infer_tool.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Shapes = Mapping[str, Sequence[int]]

QUIET = 4  # only fatal messages: everything else arrives as an exception
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxRuntimeEngine:
    """An inference session on the CPU provider."""

    name = "onnxruntime"

    def __init__(
        self, model: str | Path | ir.Model, threads: int, optimize: bool, shapes: Shapes, lean: bool
    ) -> None:
        ort = require("onnxruntime", "engines")
        options = ort.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if lean:
            options.add_session_config_entry("session.disable_prepacking", "1")
        for symbol, size in _symbols(model, shapes).items():
            options.add_free_dimension_override_by_name(symbol, size)
        self.version = str(ort.__version__)
        self._session = _open(ort, model, options)
        self.inputs = tuple(_info(i) for i in self._session.get_inputs())
        self.outputs = tuple(_info(o) for o in self._session.get_outputs())
        self._names = [o.name for o in self.outputs]

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            FeedError: a feed does not fit the model.
            ModelError: the engine fails.

        """
        try:
            values = self._session.run(self._names, dict(feeds))
        except failures() as error:
            check_feeds(self.inputs, feeds)
            raise ModelError(f"ONNX Runtime cannot run the model: {first_line(error)}") from error
        return dict(zip(self._names, values, strict=True))


def open_model(
    model: str | Path | ir.Model, threads: int, optimize: bool, shapes: Shapes, lean: bool = False
) -> OnnxRuntimeEngine:
    """Load a model."""
    return OnnxRuntimeEngine(model, threads, optimize, shapes, lean)


def version() -> str | None:
    """The installed version, or None."""
    return installed_version("onnxruntime")


def new_session(ort: Any, path: Path, options: Any) -> Any:
    """A session on the CPU; with the fallback ONNX Runtime prints and tries the same again."""
    return ort.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def _open(ort: Any, model: str | Path | ir.Model, options: Any) -> Any:
    label = "the model" if isinstance(model, ir.Model) else str(model)
    try:
        with as_file(model) as path:
            return new_session(ort, path, options)
    except failures() as error:
        raise ModelError(f"{label}: ONNX Runtime refuses it: {first_line(error)}") from error


def _symbols(model: str | Path | ir.Model, shapes: Shapes) -> dict[str, int]:
    """Sizes of the symbolic dimensions of inputs; those without a name stay dynamic."""
    if not shapes:
        return {}
    graph = (model if isinstance(model, ir.Model) else ir.load(model)).graph
    return {
        str(dimension.value): size
        for value in graph.inputs
        for dimension, size in zip(
            value.shape or (), shapes.get(value.name or "", ()), strict=False
        )
        if isinstance(dimension, ir.SymbolicDim) and dimension.value
    }


@cache
def failures() -> tuple[type[Exception], ...]:
    """What a session raises; the classes have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile",
        "NotImplemented", "RuntimeException", "EPFail", "NoModel", "ModelLoaded",
    )  # fmt: skip
    found = tuple(getattr(state, n) for n in names if hasattr(state, n))
    return (*found, ValueError, RuntimeError)


def _info(value: Any) -> TensorInfo:
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    name = _DTYPES.get(kind, kind)
    dtype = np.dtype(object) if kind == "string" or "(" in kind else _dtype(name)
    shape = tuple(d if isinstance(d, (int, str)) else None for d in value.shape)
    return TensorInfo(value.name, shape, dtype)


def _dtype(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        return np.dtype(ir.DataType[name.upper()].numpy())
