"""The same trained network saved in several formats: one answer, and graphs of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import zoo
from importers.row import Row

from infer_runtime import Session
from infer_tool.importers import ImportOptions, import_source
from passes.base import all_nodes
from passes.pipeline import optimize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnx_ir import Model

Array = np.ndarray
SPREAD = 1.1  # most nodes over fewest, after the passes


def rows(only: str = "", models: Path | None = None) -> Iterator[Row]:
    """All rows whose model's name holds the text; `models` is a folder with ResNet8's files."""
    if only in "basic-pitch, three formats":
        root = zoo._wheel(zoo.CACHE, "basic-pitch==0.4.0") / "basic_pitch/saved_models/icassp_2022"
        noise = np.random.default_rng(0).normal(size=(2, 43844, 1)).astype(np.float32)
        sources = [root / name for name in ("nmp", "nmp.tflite", "nmp.onnx")]
        yield alike("basic-pitch, three formats", sources, noise, 1e-4)
    if only in "ResNet8, two formats" and models is not None:
        pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
        files = [models / name for name in ("resnet8_cifar10.h5", "resnet8_cifar10_float.tflite")]
        yield alike("ResNet8, two formats", files, pixels, 1e-5)


def alike(name: str, sources: Sequence[Path], x: Array, limit: float) -> Row:
    """Import and optimise each; largest error between any two, and the node counts.

    Outputs have other names in each format, in the order of their names or of their signature:
    each output of the first is compared with the nearest of the others.
    """
    graphs = [optimize(import_source(str(path), ImportOptions()).model).model for path in sources]
    first, *others = [_outputs(graph, x) for graph in graphs]
    error = max(min(_apart(a, b) for b in found) for found in others for a in first)
    counts = [sum(1 for _ in all_nodes(graph)) for graph in graphs]
    if max(counts) > SPREAD * min(counts):
        error = float("inf")
    kinds = ", ".join(
        f"{path.suffix or 'folder'} {n}" for path, n in zip(sources, counts, strict=True)
    )
    return Row(name, "optimised", counts[0], 0.0, error, limit, note=f"nodes: {kinds}")


def _outputs(model: Model, x: Array) -> list[Array]:
    session = Session(model)
    return list(session.run({session.inputs[0].name: x}).values())


def _apart(a: Array, b: Array) -> float:
    same = a.shape == b.shape
    return float(np.max(np.abs(a - b)) / np.max(np.abs(a))) if same else float("inf")
