"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import tempfile
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime import TensorInfo
from infer_runtime.errors import ModelError
from infer_tool.emitters.onnx import INLINE_LIMIT, weight_bytes
from infer_tool.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping

QUIET = 4  # only fatal messages: everything else arrives as an exception
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxRuntimeEngine:
    """An inference session on the CPU provider."""

    name = "onnxruntime"

    def __init__(self, model: str | Path | ir.Model, threads: int, optimize: bool) -> None:
        ort = require("onnxruntime", "engines")
        options = ort.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = threads
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.version = str(ort.__version__)
        self._failures = _failures()
        label = "the model" if isinstance(model, ir.Model) else str(model)
        content, self._folder = _loadable(model)
        try:
            self._session = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except self._failures as error:
            raise ModelError(f"{label}: ONNX Runtime refuses it: {_first_line(error)}") from error
        self.inputs = tuple(_info(i) for i in self._session.get_inputs())
        self._outputs = [o.name for o in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name."""
        try:
            values = self._session.run(self._outputs, dict(feeds))
        except self._failures as error:
            raise ModelError(f"ONNX Runtime cannot run the model: {_first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))


def open_model(model: str | Path | ir.Model, threads: int, optimize: bool) -> OnnxRuntimeEngine:
    """Load a model."""
    return OnnxRuntimeEngine(model, threads, optimize)


def version() -> str | None:
    """The installed version, or None."""
    try:
        return installed("onnxruntime")
    except PackageNotFoundError:
        return None


def _loadable(
    model: str | Path | ir.Model,
) -> tuple[bytes | str, tempfile.TemporaryDirectory[str] | None]:
    """What a session loads, and the folder that must live as long as it does."""
    if isinstance(model, (str, os.PathLike)):
        return str(model), None
    if weight_bytes(model) <= INLINE_LIMIT:
        return bytes(ir.to_proto(model).SerializeToString()), None
    # A message beyond 2 GiB cannot be serialised: the weights go to a file of their own.
    folder = tempfile.TemporaryDirectory(prefix="infertool-")
    path = Path(folder.name) / "model.onnx"
    ir.save(model.clone(), path, external_data="model.onnx.data")
    return str(path), folder


def _failures() -> tuple[type[Exception], ...]:
    """What a session raises; the classes have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile",
        "NotImplemented", "RuntimeException", "EPFail", "NoModel", "ModelLoaded",
    )  # fmt: skip
    found = tuple(getattr(state, n) for n in names if hasattr(state, n))
    return (*found, ValueError, RuntimeError)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


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
