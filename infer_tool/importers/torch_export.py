"""PyTorch ExportedProgram files (.pt2), read without running anything that they contain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infer_tool.importers.torch_archive import check_archive
from infer_tool.importers.torch_source import import_torch

if TYPE_CHECKING:
    from infer_tool.importers import Imported, ImportOptions


def load(source: str, options: ImportOptions) -> Imported:
    """Read a .pt2 and convert it; its dynamic dimensions and argument names stay.

    Raises:
        ModelError: damaged, written by an incompatible torch, or holding anything that runs.
        MissingExtraError: torch is not installed.
        LimitError: it needs more time or memory than there is.

    """
    path = Path(source)
    check_archive(path)
    return import_torch(source, "pt2", path, options, weights=path.stat().st_size)
