"""The formats of sources: one line each, which `infertool doctor --formats` prints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec

from infer_tool.plugins import plugins


@dataclass(frozen=True)
class Format:
    """How one kind of source is called, recognised and read."""

    title: str
    recognised: str
    module: str  # of this package, with a function load(source, options) -> Imported
    packages: tuple[str, ...] = ()
    extra: str = ""
    python: str = ""  # environment variable that names a Python which has the packages

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        if self.python and os.environ.get(self.python):
            return ()
        return tuple(name for name in self.packages if find_spec(name) is None)

    @property
    def fix(self) -> str:
        """What to do about missing packages."""
        install = f"pip install 'infertool[{self.extra}]'" if self.extra else ""
        own = f"set {self.python} to a Python that has {' and '.join(self.packages)}"
        return " or ".join(way for way in (install, own if self.python else "") if way)


TENSORFLOW = ("tensorflow", "tf2onnx")

FORMATS: dict[str, Format] = {
    "onnx": Format("ONNX, opset 7 to 28", "protobuf fields", "onnx"),
    "onnx_text": Format("ONNX text (.onnxtxt)", "its header", "onnx_text"),
    "tflite": Format("TFLite (.tflite), compared with LiteRT", "flatbuffer identifier", "tflite"),
    "pt2": Format(
        "PyTorch ExportedProgram (.pt2)", "zip listing", "torch_export", ("torch",), "torch"
    ),
    "torch": Format(
        "PyTorch module, package.module:factory or file.py:factory",
        "the colon",
        "torch_module",
        ("torch",),
        "torch",
    ),
    "jax": Format(
        "JAX function or module, file.py:factory",
        "what the code imports and returns",
        "jax",
        ("jax", "jax2onnx"),
        "jax",
        "INFERTOOL_JAX_PYTHON",
    ),
    "paddle": Format(
        "Paddle inference model, or file.py:factory",
        "protobuf fields, JSON, or the code",
        "paddle",
        ("paddle", "paddle2onnx"),
        "",
        "INFERTOOL_PADDLE_PYTHON",
    ),
    "mindspore": Format(
        "MindSpore cell, file.py:factory",
        "what the code imports and returns",
        "mindspore",
        ("mindspore",),
        "",
        "INFERTOOL_MINDSPORE_PYTHON",
    ),
    "torchscript": Format(
        "TorchScript (torch.jit.save)", "zip listing", "torchscript", ("torch",), "torch"
    ),
    "huggingface": Format(
        "Hugging Face folder with safetensors",
        "config.json in a folder",
        "huggingface",
        ("torch", "transformers"),
        "huggingface",
    ),
    "keras": Format("Keras 3 (.keras)", "zip listing", "tensorflow", TENSORFLOW, "tensorflow"),
    "keras_h5": Format(
        "Keras HDF5 (.h5)", "HDF5 signature", "tensorflow", TENSORFLOW, "tensorflow"
    ),
    "saved_model": Format(
        "TensorFlow SavedModel, 1 and 2",
        "folder with saved_model.pb",
        "tensorflow",
        TENSORFLOW,
        "tensorflow",
    ),
    "graph_def": Format(
        "TensorFlow frozen graph (.pb)", "protobuf fields", "tensorflow", TENSORFLOW, "tensorflow"
    ),
}


def formats() -> dict[str, Format]:
    """What is built in, and the importers of plugins: modules with a `FORMAT` and `recognises`."""
    return {name: module.FORMAT for name, module in plugins("importers").items()} | FORMATS
