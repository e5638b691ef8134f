"""What engines share: a model as a file, feeds that fit, the first line of a failure."""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import FeedError, UsageError
from infer_runtime.session import checked_feed
from infer_tool.emitters.onnx import save_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from infer_runtime import TensorInfo

MAPPED_BYTES = 1 << 26  # of weights; more go to a file beside the model, which engines map


@contextmanager
def as_file(model: str | Path | ir.Model) -> Iterator[Path]:
    """A model in memory as a file: its weights may be larger than a message, or lie elsewhere."""
    if isinstance(model, (str, os.PathLike)):
        yield Path(model)
        return
    with TemporaryDirectory(prefix="infertool-") as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(model, path, inline_limit=MAPPED_BYTES)
        yield path


def check_feeds(inputs: Sequence[TensorInfo], feeds: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """FeedError naming what does not fit; engines ask only after a failure, which is not timed."""
    infos = {info.name: info for info in inputs}
    for name in feeds:
        if name not in infos:
            raise FeedError(f"no input named {name!r}; the inputs are {list(infos)}")
    for name, info in infos.items():
        if name not in feeds:
            raise FeedError(f"input {name!r} has no feed; the inputs are {list(infos)}")
        checked_feed(info, feeds[name])


def check_shapes(inputs: Sequence[TensorInfo], shapes: Mapping[str, Sequence[int]]) -> None:
    """UsageError for a shape that fits no input."""
    infos = {info.name: info for info in inputs}
    for name, shape in shapes.items():
        if name not in infos:
            raise UsageError(f"shape of {name!r}: the model's inputs are {', '.join(infos)}")
        wanted = infos[name].shape
        fits = wanted is None or (
            len(wanted) == len(shape)
            and all(not isinstance(w, int) or w == s for w, s in zip(wanted, shape, strict=True))
        )
        if not fits:
            raise UsageError(f"shape {list(shape)} of {name!r}: the model has {list(wanted or ())}")


def installed_version(package: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return installed(package)
    except PackageNotFoundError:
        return None


def first_line(error: Exception) -> str:
    """What the engine says first; the rest are its own call stacks."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
