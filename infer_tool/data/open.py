"""Which kind of data is this? The path and its content decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.data.arrays import open_folder, open_npz
from infer_tool.data.dataset import Dataset, whole
from infer_tool.data.function import load_function
from infer_tool.data.generated import GeneratedSamples
from infer_tool.data.images import IMAGE_SUFFIXES, open_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_runtime import TensorInfo


def open_dataset(
    spec: str, inputs: Sequence[TensorInfo], *, preprocess: str | None = None
) -> Dataset:
    """Open samples for a model with these inputs.

    Raises:
        UsageError: nothing is there, or names, shapes, dtypes, values or labels do not fit.

    """
    path = Path(spec)
    if path.is_dir():
        images = next((p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES), None)
        if images is not None:
            return whole(open_images(path, inputs, preprocess))
        _no_preprocess(spec, preprocess)
        return whole(open_folder(path, inputs))
    _no_preprocess(spec, preprocess)
    if path.is_file() and path.suffix != ".py":
        return whole(open_npz(path, inputs))
    if ":" in spec and not path.exists():
        return whole(GeneratedSamples(spec, load_function(spec), inputs))
    raise UsageError(f"{spec}: no such file or folder")


def _no_preprocess(spec: str, preprocess: str | None) -> None:
    if preprocess is not None:
        raise UsageError(f"--preprocess is for image folders; {spec} holds none")
