"""TorchScript archives: what torch.jit.save wrote. Deprecated, and still everywhere."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError
from infer_tool.importers.torch_archive import DAMAGE, check_zip
from infer_tool.importers.torch_inputs import parse_inputs
from infer_tool.importers.torch_source import import_torch

if TYPE_CHECKING:
    from infer_tool.importers import Imported, ImportOptions

# TorchScript calls torch's operators and nothing else; these of them touch files, processes, the
# network or raw memory. Words, wherever they stand: its own parser takes them in many spellings.
FORBIDDEN = re.compile(
    rb"\b(from_file|save|fork|rpc_\w+|awaitable\w*|_?c10d\w*|symm_mem|debugprims|profiler"
    rb"|inductor\w*|static_runtime|_dtensor|_test)\b"
)


def load(source: str, options: ImportOptions) -> Imported:
    """Convert by the first route that works; `Imported.route` says which.

    Raises:
        UsageError: --input is missing or wrong.
        ModelError: damaged, reaching outside, or no route converts it.
        MissingExtraError: torch is not installed.
        LimitError: it needs more time or memory than there is.

    """
    path = Path(source)
    check_torchscript(path)
    parse_inputs(source, options.input)
    return import_torch(source, "torchscript", path, options, weights=path.stat().st_size)


def check_torchscript(path: Path) -> None:
    """Raise ModelError for an archive that is damaged or whose code reaches outside of itself."""
    names = check_zip(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if name.endswith(".py"):
                    _check_code(path, name, archive.read(name))
    except DAMAGE as error:
        raise ModelError(f"{path}: is a damaged zip archive; copy it again") from error


def _check_code(path: Path, name: str, code: bytes) -> None:
    found = FORBIDDEN.search(code)
    if found:
        line = code[: found.start()].count(b"\n") + 1
        raise ModelError(
            f"{path}: {name}, line {line} names {found[1].decode()!r}, which reaches outside of "
            "the model; it is not loaded"
        )
