"""This side of every PyTorch source: a child process converts and runs it, torch stays out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError
from infer_runtime.mapped import map_external
from infer_tool.extras import check_installed
from infer_tool.importers import Imported
from infer_tool.importers import onnx as onnx_files
from infer_tool.importers.memory import check_memory
from infer_tool.importers.normalise import normalise
from infer_tool.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from infer_tool.config import ImportOptions

MODEL = "model.onnx"  # what the child leaves in the worker's folder, its weights beside it
CHILD = "infer_tool.importers.torch_child"


def import_torch(
    source: str,
    kind: str,
    path: Path | None,
    options: ImportOptions,
    *,
    weights: int = 0,
    extra: str = "torch",
    **facts: Any,
) -> Imported:
    """Let a child process open, convert and keep the source.

    Args:
        source: what the user called it.
        kind: of the source; the child has an opener for it.
        path: of the source's file or folder, if there is one.
        options: of the command.
        weights: bytes of the source; the conversion holds them several times.
        extra: of this package that brings torch and what else is needed.
        facts: whatever else the opener wants to know, as JSON.

    Raises:
        ModelError: it cannot be read or converted.
        UsageError: an option does not fit.
        MissingExtraError: torch is not installed.
        LimitError: it needs more time or memory than there is.

    """
    check_installed("torch", extra)
    check_memory(source, weights)
    known = {k: v for k, v in asdict(options).items() if k in ("input", "submodule")}
    worker = Worker(CHILD, source, {"kind": kind, **known, **facts})
    try:
        model = onnx_files.read(worker.folder / MODEL)
        map_external(model, beyond=0)  # the folder goes before the model
        model = normalise(model, source)
    except ModelError as error:
        inner = str(error).removeprefix(f"{worker.folder / MODEL}: ").removeprefix(f"{source}: ")
        raise ModelError(f"{source}: torch wrote an invalid model: {inner}") from error
    return Imported(model, kind, path, worker, route=worker.facts["route"])
