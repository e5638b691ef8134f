"""The bundled reference runtime as an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_tool.version import version as own_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir


class ReferenceEngine:
    """`infer_runtime.Session` under the interface of an engine."""

    name = "reference"

    def __init__(self, model: str | Path | ir.Model, *, target_cpu: str | None = None) -> None:
        self.version = version()
        self._session = Session(model, target_cpu=target_cpu)
        self.inputs = self._session.inputs
        self.outputs = self._session.outputs

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name."""
        return self._session.run(feeds)


def open_model(
    model: str | Path | ir.Model,
    threads: int,  # noqa: ARG001 - the threads are BLAS's, set before NumPy loads
    optimize: bool,  # noqa: ARG001 - the graph always runs as it is written
    shapes: Mapping[str, Sequence[int]],  # noqa: ARG001 - nothing is specialised
    lean: bool = False,  # noqa: ARG001 - weights are always used where they lie
) -> ReferenceEngine:
    """Load a model."""
    return ReferenceEngine(model)


def version() -> str:
    """The version of this package."""
    return own_version()
