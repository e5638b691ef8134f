"""Samples in .npz files and in folders of .npy or .npz files."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.data.checks import check_labels, check_names, check_sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]

LABELS = "labels"


@dataclass(frozen=True)
class ArraySamples:
    """Whole arrays whose first axis is the sample."""

    arrays: dict[str, Array]
    labels: Array | None

    def __len__(self) -> int:
        """Length of the first axis."""
        return len(next(iter(self.arrays.values())))

    def read(self, index: int) -> dict[str, Array]:
        """One row of each array."""
        return {name: array[index] for name, array in self.arrays.items()}


@dataclass(frozen=True)
class FileSamples:
    """One file for each sample, read when it is asked for."""

    files: tuple[Path, ...]
    inputs: tuple[TensorInfo, ...]
    labels: Array | None = None

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def read(self, index: int) -> dict[str, Array]:
        """The arrays of one file."""
        path = self.files[index]
        arrays = load_arrays(path, self.inputs)
        arrays.pop(LABELS, None)
        check_names(path, arrays, self.inputs)
        return {i.name: check_sample(path, i, arrays[i.name]) for i in self.inputs}


def open_npz(path: Path, inputs: Sequence[TensorInfo]) -> ArraySamples:
    """Arrays named after the inputs, and optional labels."""
    arrays = load_arrays(path, inputs)
    labels = arrays.pop(LABELS, None) if LABELS not in {i.name for i in inputs} else None
    check_names(path, arrays, inputs)
    counts = {name: len(a) if a.ndim else 0 for name, a in arrays.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise UsageError(f"{path}: the arrays hold different numbers of samples: {counts}")
    if not count:
        raise UsageError(f"{path}: holds 0 samples")
    for info in inputs:
        arrays[info.name] = _check_whole(path, info, arrays[info.name])
    if labels is not None:
        labels = check_labels(path, labels, count)
    return ArraySamples(arrays, labels)


def _check_whole(path: Path, info: TensorInfo, array: Array) -> Array:
    """Every sample is checked: the one that is broken is rarely the first."""
    for row in array:
        check_sample(path, info, row)
    return array.astype(info.dtype, copy=False)


def open_folder(path: Path, inputs: Sequence[TensorInfo]) -> FileSamples:
    """One .npy (of a model with one input) or .npz for each sample, in the order of names."""
    files = tuple(sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz")))
    if not files:
        raise UsageError(f"{path}: the folder holds no .npy, .npz or image files")
    return FileSamples(files, tuple(inputs))


def load_arrays(path: Path, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    """All arrays of a file; nothing pickled is read."""
    try:
        with path.open("rb") as handle:
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {inputs[0].name if len(inputs) == 1 else path.stem: loaded}
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UsageError(f"{path}: not a readable .npz or .npy file ({error})") from error
