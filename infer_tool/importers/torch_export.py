"""PyTorch ExportedProgram files (.pt2), read without running anything that they contain."""

from __future__ import annotations

import pickle
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError
from infer_tool.extras import require
from infer_tool.importers.normalise import quiet
from infer_tool.importers.torch_common import import_program, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infer_tool.importers import Imported, ImportOptions


def load(source: str, options: ImportOptions) -> Imported:  # noqa: ARG001 - the file says it all
    """Read a .pt2 and convert it; its dynamic dimensions and argument names stay.

    Raises:
        ModelError: damaged, written by an incompatible torch, or holding pickled objects.
        MissingExtraError: torch is not installed.

    """
    torch = require("torch", "torch")
    try:
        with quiet(), _no_pickled_code(torch):
            program = torch.export.load(source)
    except Exception as error:
        # A damaged archive fails in as many ways as it has parts; none of them is ours to handle.
        raise ModelError(f"{source}: torch cannot read it: {reason(error)}") from error
    return import_program(program, source, "pt2", Path(source))


@contextmanager
def _no_pickled_code(torch: Any) -> Iterator[None]:
    """Force every load inside `torch.export.load` to accept tensors and plain containers only.

    torch reads some members with weights_only=False, which would run code of a crafted file.
    """
    original = torch.load, pickle.loads, torch._C._pickle_load_obj

    def safe(*arguments: Any, **keywords: Any) -> Any:
        return original[0](*arguments, **{**keywords, "weights_only": True})

    def refuse(*_: Any, **__: Any) -> Any:
        raise ModelError("the archive holds a pickled object, which is not read")

    torch.load, pickle.loads, torch._C._pickle_load_obj = safe, refuse, refuse
    try:
        yield
    finally:
        torch.load, pickle.loads, torch._C._pickle_load_obj = original
