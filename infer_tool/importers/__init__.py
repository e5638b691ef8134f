"""Importers: from a file or a module to an `onnx_ir.Model`, chosen by content."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from infer_tool.importers.detect import detect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    Outputs = dict[str, np.ndarray[Any, Any]]
    Run = Callable[[Mapping[str, np.ndarray[Any, Any]]], Outputs]

MODULES = {
    "onnx": "onnx",
    "pt2": "torch_export",
    "torch": "torch_module",
    "keras": "tensorflow",
    "saved_model": "tensorflow",
}


@dataclass(frozen=True)
class ImportOptions:
    """What a source does not say by itself: inputs as name:shape:dtype."""

    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """A model, where it came from, and how its source framework runs it."""

    model: ir.Model
    kind: str
    path: Path | None
    reference: Run
    opset: int | None = None  # of the source before it was normalised, where it has one


def import_source(source: str, options: ImportOptions) -> Imported:
    """Import any source.

    Raises:
        UsageError: no such file, or an option is wrong.
        ModelError: the content is not a model, or cannot be converted.
        MissingExtraError: the framework is not installed.

    """
    kind = detect(source)
    imported: Imported = import_module(f"infer_tool.importers.{MODULES[kind]}").load(
        source, options
    )
    return imported
