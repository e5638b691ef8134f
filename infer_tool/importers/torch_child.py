"""The other side of every PyTorch source: in a worker process, where torch may do its worst."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_tool.importers.torch_source import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from infer_tool.importers import Outputs
    from infer_tool.importers.torch_program import Opened

# Each module has a function open(source, options, folder) -> Opened.
OPENERS = {
    "pt2": "torch_export_child",
    "torch": "torch_module_child",
    "torchscript": "torchscript_child",
    "huggingface": "huggingface_child",
}


def open_source(
    source: str, folder: Path, options: Mapping[str, Any]
) -> tuple[Callable[[Mapping[str, Any]], Outputs], dict[str, Any]]:
    """Open and convert; leaves the ONNX file in the folder.

    Raises:
        ModelError: torch cannot read, export or convert it.
        UsageError: the user's code or an option is wrong.

    """
    module = import_module(f"infer_tool.importers.{OPENERS[options['kind']]}")
    opened: Opened = module.open_source(source, options, folder)
    run = opened.reference(source)
    ir.save(opened.model, folder / MODEL, external_data=f"{MODEL}.data")
    opened.model = None
    return run, {"route": opened.route}
