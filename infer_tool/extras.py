"""Optional packages: imported where they are used, a clear line where they are missing."""

from __future__ import annotations

from importlib import import_module
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
