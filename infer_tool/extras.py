"""Optional packages: imported where they are used, a clear line where they are missing."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING

from infer_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import an optional module.

    Raises:
        MissingExtraError: naming the pip command that brings it.

    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{module} is not installed; run: pip install 'infertool[{extra}]'"
        ) from error


def check_installed(module: str, extra: str) -> None:
    """The same without importing it, for what runs in a process of its own.

    Raises:
        MissingExtraError: naming the pip command that brings it.

    """
    if find_spec(module) is None:
        raise MissingExtraError(f"{module} is not installed; run: pip install 'infertool[{extra}]'")


def require_in_child(module: str, package: str) -> ModuleType:
    """Import in a worker's Python, which may be another one than the command's.

    Raises:
        MissingExtraError: naming the pip command for that Python.

    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = package if error.name == module else error.name
        raise MissingExtraError(
            f"{missing} is not installed; run: {sys.executable} -m pip install {missing}"
        ) from error


def interpreter(kind: str) -> str | None:
    """Another Python that has a framework: $INFERTOOL_<KIND>_PYTHON; None is this one.

    Raises:
        MissingExtraError: there is no such file.

    """
    variable = f"INFERTOOL_{kind.upper()}_PYTHON"
    python = os.environ.get(variable)
    if python and which(python) is None:
        raise MissingExtraError(f"{variable} is {python}, which is no program; name a python")
    return python or None
