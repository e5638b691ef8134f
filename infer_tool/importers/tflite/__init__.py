"""TFLite files: an importer of our own on the flatbuffer, without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers import Imported
from infer_tool.importers.normalise import normalise
from infer_tool.importers.tflite.graph import import_file
from infer_tool.importers.tflite.hybrid import hybrid_operators
from infer_tool.importers.tflite.reference import LazyReference
from infer_tool.importers.tflite.schema import read_file

if TYPE_CHECKING:
    from infer_tool.importers import ImportOptions


def load(source: str, options: ImportOptions) -> Imported:
    """Read a file; names come from its signature, quantisation stays as QDQ.

    Variables become state inputs, whose defaults are the first values, and state outputs. The
    reference is LiteRT in a process of its own; it is started when somebody compares.

    Raises:
        ModelError: the file is damaged.
        UnsupportedOpError: naming the operators that ONNX has not, all of them in one error.
        UsageError: it has no such signature.

    """
    path = Path(source)
    try:
        file = read_file(path.read_bytes())
    except ModelError as error:
        raise ModelError(f"{source}: damaged TFLite file: {error}; copy it again") from error
    try:
        result = import_file(file, options.signature)
    except (ModelError, UsageError) as error:
        raise type(error)(f"{source}: {error}") from error
    hybrids = hybrid_operators(file)
    return Imported(
        normalise(result.model, source), "tflite", path, LazyReference(source, result, hybrids > 0),
        route=f"{hybrids} hybrid operators with values that stay float" if hybrids else "",
        states=dict(result.state_names),
    )  # fmt: skip
