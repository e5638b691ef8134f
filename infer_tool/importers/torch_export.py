"""PyTorch ExportedProgram files (.pt2), read without running anything that they contain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import InferError, ModelError
from infer_tool.extras import require
from infer_tool.importers.torch_archive import check_archive, no_pickled_code
from infer_tool.importers.torch_common import import_program
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from infer_tool.importers import Imported, ImportOptions


def load(source: str, options: ImportOptions) -> Imported:  # noqa: ARG001 - the file says it all
    """Read a .pt2 and convert it; its dynamic dimensions and argument names stay.

    Raises:
        ModelError: damaged, written by an incompatible torch, or holding anything that runs.
        MissingExtraError: torch is not installed.

    """
    torch = require("torch", "torch")
    check_archive(Path(source))
    try:
        with quiet(), no_pickled_code(torch):
            program = torch.export.load(source)
    except Exception as error:
        # A damaged archive fails in as many ways as it has parts; none of them is ours to handle.
        raise ModelError(f"{source}: torch cannot read it: {_why(error)}") from error
    # Texts from the file that torch would execute; the comparison notices what they would refuse.
    program._guards_code = []
    return import_program(program, source, "pt2", Path(source))


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, InferError) else reason(error)
