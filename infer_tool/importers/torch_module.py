"""PyTorch modules from code that the user names: package.module:factory or file.py:factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.state_dict import check_state_dict
from infer_tool.importers.torch_inputs import parse_inputs
from infer_tool.importers.torch_source import import_torch

if TYPE_CHECKING:
    from infer_tool.importers import Imported, ImportOptions


def load(source: str, options: ImportOptions) -> Imported:
    """Call the factory, load --state-dict, export the module or its --submodule, convert.

    Raises:
        UsageError: the code cannot be found or fails, returns no module, or --input is missing.
        ModelError: torch cannot export the module, or the state dict is none.
        MissingExtraError: torch is not installed.
        LimitError: it needs more time or memory than there is.

    """
    parse_inputs(source, options.input)
    weights, size = options.state_dict, 0
    if weights is not None:
        size = check_state_dict(weights)
    return import_torch(source, "torch", None, options, weights=size, state_dict=str(weights or ""))
