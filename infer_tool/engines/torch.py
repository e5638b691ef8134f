"""PyTorch: exported programs (.pt2), under the names that their import gives them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.session import tensor_info
from infer_tool.engines.common import check_feeds, installed_version
from infer_tool.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir


class TorchEngine:
    """The program itself, on the CPU; nothing of it went through ONNX but the names."""

    name = "torch"

    def __init__(self, model: str | Path, threads: int) -> None:
        from infer_tool.config import ImportOptions
        from infer_tool.importers import import_source

        self._torch = require("torch", "torch")
        self.version = str(version())
        imported = import_source(str(model), ImportOptions())
        self._reference = imported.reference
        self._threads = threads
        self.inputs = tuple(tensor_info(v) for v in imported.model.graph.inputs)
        self.outputs = tuple(tensor_info(v) for v in imported.model.graph.outputs)

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            FeedError: a feed does not fit the model.
            ModelError: the engine fails.

        """
        check_feeds(self.inputs, feeds)
        if self._threads and self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)
        return self._reference(feeds)


def open_model(
    model: str | Path | ir.Model,
    threads: int,
    optimize: bool,  # noqa: ARG001 - the program runs as it was exported
    shapes: Mapping[str, Sequence[int]],  # noqa: ARG001 - nothing is specialised
    lean: bool = False,  # noqa: ARG001 - weights are used where they lie
) -> TorchEngine:
    """Load a program."""
    assert isinstance(model, (str, Path))
    return TorchEngine(model, threads)


def version() -> str | None:
    """The installed version, or None."""
    return installed_version("torch")
