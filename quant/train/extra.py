"""torch, which training needs and nothing else here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType


def import_torch() -> ModuleType:
    """The torch package.

    Raises:
        MissingExtraError: it is not installed.

    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            "training needs torch; run: pip install 'infertool[torch]'"
        ) from error
    return torch
