"""Importers: from a file, a folder or a module to an `onnx_ir.Model`, chosen by content."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from infer_tool.config import ImportOptions
from infer_tool.importers.detect import detect
from infer_tool.importers.formats import FORMATS
from infer_tool.plugins import load_plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    Outputs = dict[str, np.ndarray[Any, Any]]
    Run = Callable[[Mapping[str, np.ndarray[Any, Any]]], Outputs]

__all__ = ["ImportOptions", "Imported", "import_source"]


@dataclass(frozen=True)
class Imported:
    """A model, where it came from, and how its source framework runs it.

    Importers hand over a model that `normalise` has seen.
    """

    model: ir.Model
    kind: str  # a key of FORMATS
    path: Path | None
    reference: Run
    opset: int | None = None  # of the source before it was normalised, where it has one
    route: str = ""  # how it was converted, where there are several ways
    # State inputs, which have the first values as defaults, and the outputs to feed back into them.
    states: Mapping[str, str] = field(default_factory=dict)


def _module(kind: str) -> Any:
    if kind in FORMATS:
        return import_module(f"infer_tool.importers.{FORMATS[kind].module}")
    return load_plugin("importers", kind)


def import_source(source: str, options: ImportOptions) -> Imported:
    """Import any source; the result has passed the gate that all importers share.

    Raises:
        UsageError: no such file, or an option is wrong.
        ModelError: the content is not a model, or cannot be converted.
        MissingExtraError: the framework is not installed.

    """
    from infer_tool.importers.gate import check, keep_outputs, only

    kind = detect(source)
    imported: Imported = _module(kind).load(source, options)
    if kind != "onnx":  # whose users may have an engine with operators of its own
        check(imported.model, source)
    if not options.output_name:
        return imported
    keep_outputs(imported.model, options.output_name, source)
    return replace(imported, reference=only(imported.reference, options.output_name))
