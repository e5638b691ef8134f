"""An engine: the evaluator of the onnx package."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.session import load_graph, tensor_info
from infer_tool.engines.common import check_feeds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

READS = "onnx"


class Evaluator:
    """A model on onnx.reference."""

    name = "evaluator"

    def __init__(self, model: ir.Model) -> None:
        from onnx.reference import ReferenceEvaluator

        self.version = version()
        self.inputs = tuple(tensor_info(v) for v in model.graph.inputs)
        self.outputs = tuple(tensor_info(v) for v in model.graph.outputs)
        self._run = ReferenceEvaluator(ir.to_proto(model)).run

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name."""
        check_feeds(self.inputs, feeds)
        names = [output.name for output in self.outputs]
        return dict(zip(names, self._run(names, dict(feeds)), strict=True))


def open_model(
    model: str | Path | ir.Model,
    threads: int,
    optimize: bool,
    shapes: Mapping[str, Sequence[int]],
    lean: bool = False,
) -> Evaluator:
    """Load a model; the evaluator has none of the options."""
    return Evaluator(model if isinstance(model, ir.Model) else load_graph(model))


def version() -> str | None:
    """The installed version, None where the engine cannot run."""
    return installed("onnx")
