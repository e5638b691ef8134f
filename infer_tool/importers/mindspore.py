"""MindSpore cells that a factory returns, through MindSpore's own export to ONNX.

`load` is this side, `open_source` the child's. MindSpore exports at opset 11 and with fixed sizes;
from a MINDIR file it exports nothing.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError, UsageError
from infer_tool.extras import require_in_child
from infer_tool.importers.factory import are_parameters, call_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from infer_tool.importers import Imported, ImportOptions


def load(source: str, options: ImportOptions) -> Imported:
    """Call the factory in a child process and convert the cell.

    Raises:
        UsageError: the code fails or returns no cell, --input is missing or has open dimensions.
        ModelError: MindSpore cannot export it.
        MissingExtraError: MindSpore is not installed.

    """
    from infer_tool.importers.foreign import load_framework

    return load_framework(source, options, "mindspore")


def open_source(
    source: str, folder: Path, options: Mapping[str, Any]
) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], dict[str, Any]]:
    """In the child: build the cell and export it."""
    mindspore = require_in_child("mindspore", "mindspore")
    cell = call_factory(source)
    if not isinstance(cell, mindspore.nn.Cell):
        shown = type(cell).__name__
        raise UsageError(f"{source}: returned {shown}, expected a mindspore.nn.Cell")
    cell.set_train(False)
    items = options["input"]
    names = [item["name"] for item in items]
    parameters = list(inspect.signature(cell.construct).parameters)
    if are_parameters(parameters, names, source):
        items = sorted(items, key=lambda item: parameters.index(item["name"]))
        names = [item["name"] for item in items]

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        return _outputs(cell(*(mindspore.Tensor(feeds[name]) for name in names)))

    examples = [_example(mindspore, item, source) for item in items]
    outputs = list(_outputs(cell(*examples)))
    target = folder / "model.onnx"
    mindspore.export(cell, *examples, file_name=str(target), file_format="ONNX")
    if not target.is_file():
        raise ModelError(f"{source}: MindSpore wrote no file")
    return run, {"route": "mindspore.export", "inputs": names, "outputs": outputs}


def _example(mindspore: Any, item: Mapping[str, Any], source: str) -> Any:
    for size in item["shape"]:
        if not isinstance(size, int):
            raise UsageError(
                f"--input {item['name']}: MindSpore exports fixed sizes only; state a number "
                f"instead of {size!r} for {source}"
            )
    import numpy as np

    return mindspore.Tensor(np.zeros(item["shape"], item["dtype"]))


def _outputs(results: Any) -> dict[str, Any]:
    if isinstance(results, tuple | list):
        return {f"output_{i}": value.asnumpy() for i, value in enumerate(results)}
    return {"output": results.asnumpy()}
