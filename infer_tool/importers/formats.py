"""The formats of sources: one line each, which `infertool doctor --formats` prints."""

from __future__ import annotations

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

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(name for name in self.packages if find_spec(name) is None)


FORMATS: dict[str, Format] = {
    "onnx": Format("ONNX, opset 7 and up", "protobuf fields", "onnx"),
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
    "keras": Format(
        "Keras 3 (.keras)", "zip listing", "tensorflow", ("tensorflow", "tf2onnx"), "tensorflow"
    ),
    "saved_model": Format(
        "TensorFlow SavedModel",
        "folder with saved_model.pb",
        "tensorflow",
        ("tensorflow", "tf2onnx"),
        "tensorflow",
    ),
}


def formats() -> dict[str, Format]:
    """What is built in, and the importers of plugins: modules with a `FORMAT` and `recognises`."""
    return {name: module.FORMAT for name, module in plugins("importers").items()} | FORMATS
