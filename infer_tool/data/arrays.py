"""Samples in .npz files and in folders of .npy or .npz files."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.data.checks import check_labels, check_names, check_sample, check_samples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]

LABELS = "labels"
# What NumPy raises for a file that is damaged, or that claims a size which memory cannot hold.
DAMAGE = (
    ValueError, OSError, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError,
    zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


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
    labels: Array | None

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def read(self, index: int) -> dict[str, Array]:
        """The arrays of one file."""
        path = self.files[index]
        arrays = load_arrays(path, self.inputs)
        _take_labels(arrays, self.inputs)
        check_names(path, arrays, self.inputs)
        return {i.name: check_sample(path, i, arrays[i.name]) for i in self.inputs}


def open_npz(path: Path, inputs: Sequence[TensorInfo]) -> ArraySamples:
    """Arrays named after the inputs, and optional labels."""
    arrays = load_arrays(path, inputs)
    labels = _take_labels(arrays, inputs)
    check_names(path, arrays, inputs)
    counts = {name: len(a) if a.ndim else 0 for name, a in arrays.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        raise UsageError(f"{path}: the arrays hold different numbers of samples: {counts}")
    if not count:
        raise UsageError(f"{path}: holds 0 samples")
    checked = {i.name: check_samples(path, i, arrays[i.name]) for i in inputs}
    return ArraySamples(checked, None if labels is None else check_labels(path, labels, count))


def open_folder(path: Path, inputs: Sequence[TensorInfo]) -> FileSamples:
    """One .npy (of a model with one input) or .npz for each sample, in the order of names.

    Labels are in `labels.npy`, or as `labels` in each .npz.
    """
    table = path / f"{LABELS}.npy"
    files = tuple(sorted(p for p in path.iterdir() if p.suffix in (".npy", ".npz") and p != table))
    if not files:
        raise UsageError(f"{path}: the folder holds no .npy, .npz or image files")
    if table.exists():
        (found,) = load_arrays(table, inputs).values()
        return FileSamples(files, tuple(inputs), check_labels(table, found, len(files)))
    return FileSamples(files, tuple(inputs), _labels_of(files, inputs))


def _labels_of(files: Sequence[Path], inputs: Sequence[TensorInfo]) -> Array | None:
    """Labels inside the samples' own files; a file without one among others is an error."""
    archives = [path for path in files if path.suffix == ".npz"]
    loaded = (_take_labels(load_arrays(path, inputs), inputs) for path in archives)
    found = [np.squeeze(labels) for labels in loaded if labels is not None]
    if not found:
        return None
    folder = files[0].parent
    if len(found) != len(files):
        raise UsageError(f"{folder}: {len(found)} of {len(files)} files have labels")
    return check_labels(folder, np.array(found), len(files))


def _take_labels(arrays: dict[str, Array], inputs: Sequence[TensorInfo]) -> Array | None:
    return None if LABELS in {i.name for i in inputs} else arrays.pop(LABELS, None)


def load_arrays(path: Path, inputs: Sequence[TensorInfo]) -> dict[str, Array]:
    """All arrays of a file; nothing pickled is read."""
    try:
        with path.open("rb") as handle:
            loaded = np.load(handle, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {inputs[0].name if len(inputs) == 1 else path.stem: loaded}
            return {name: loaded[name] for name in loaded.files}
    except DAMAGE as error:
        raise UsageError(f"{path}: not a readable .npz or .npy file ({error})") from error
