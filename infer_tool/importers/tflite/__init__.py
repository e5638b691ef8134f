"""TFLite files: an importer of our own on the flatbuffer, without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import InferError, ModelError
from infer_tool.importers import Imported
from infer_tool.importers.normalise import normalise
from infer_tool.importers.tflite.graph import import_file
from infer_tool.importers.tflite.reference import LazyReference
from infer_tool.importers.tflite.schema import read_file

if TYPE_CHECKING:
    from infer_tool.importers import ImportOptions


def load(source: str, options: ImportOptions) -> Imported:
    """Read a file; names come from its signature, quantisation stays as QDQ.

    The reference is LiteRT in a process of its own; it is started when somebody compares.

    Raises:
        ModelError: the file is damaged.
        UnsupportedOpError: naming the operators that ONNX has not, all of them in one error.
        UsageError: it has no such signature.

    """
    path = Path(source)
    try:
        file = read_file(path.read_bytes())
        model, entry = import_file(file, options.signature)
    except ModelError as error:
        raise type(error)(f"{source}: {error}") from error
    return Imported(normalise(model, source), "tflite", path, LazyReference(source, entry))
