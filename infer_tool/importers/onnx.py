"""ONNX files: opset 7 and up, external data inside the model's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.errors import ModelError
from infer_tool.engines import available_engines, open_engine
from infer_tool.importers import Imported, ImportOptions
from infer_tool.importers.normalise import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infer_tool.importers import Outputs


def load(source: str, options: ImportOptions) -> Imported:  # noqa: ARG001 - the file says it all
    """Read, check and normalise a file.

    The reference is ONNX Runtime without optimisations on the original file where it is installed
    and loads it, else the bundled runtime on the original graph.

    Raises:
        ModelError: not a model, damaged, of an unknown opset, or reaching outside its folder.

    """
    path = Path(source)
    model = read(path)
    check_external_data(path, model)
    return Imported(normalise(model, source), "onnx", path, _LazyReference(path))


def read(path: Path) -> ir.Model:
    """Parse a file; large weights stay on disk."""
    from google.protobuf.message import DecodeError

    try:
        model = ir.load(path)
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path}: not an ONNX model, or damaged ({_first_line(error)}); copy it again"
        ) from error
    if not model.opset_imports or not (len(model.graph) or model.graph.outputs):
        raise ModelError(f"{path}: not an ONNX model: it holds no graph")
    return model


def check_external_data(path: Path, model: ir.Model) -> None:
    """External data must exist, be large enough, and lie inside the model's folder."""
    folder = path.resolve().parent
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor):
                _check_tensor(path, folder, name, tensor)


def _check_tensor(path: Path, folder: Path, name: str, tensor: ir.ExternalTensor) -> None:
    location = str(tensor.location)
    data = (folder / location).resolve()
    if Path(location).is_absolute() or not data.is_relative_to(folder):
        raise ModelError(
            f"{path}: initialiser {name!r} lies at {location!r}, outside the model's folder"
        )
    if not data.is_file():
        raise ModelError(f"{path}: its data file {location!r} is missing; put it beside the model")
    start = tensor.offset or 0
    end = start + max(tensor.length or 0, tensor.nbytes)
    if end > data.stat().st_size:
        raise ModelError(
            f"{path}: its data file {location!r} ends before initialiser {name!r}; copy it again"
        )


class _LazyReference:
    """Loads the original only when somebody compares with it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._run: Any = None

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        if self._run is None:
            self._run = self._open()
        outputs: Outputs = self._run(feeds)
        return outputs

    def _open(self) -> Any:
        if not available_engines().get("onnxruntime"):
            return Session(self._path).run
        try:
            return open_engine("onnxruntime", self._path, optimize=False).run
        except ModelError:
            # A file that is newer than ONNX Runtime (IR version, opset) is still one of ours.
            return Session(self._path).run


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else "unreadable"
