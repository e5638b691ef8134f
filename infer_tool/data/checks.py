"""Do arrays fit the inputs of a model? Every answer names the file and both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]

INTEGERS = "iu"
NUMBERS_OF_A_BATCH = 1 << 24  # checked at a time: a mask of everything would double the memory


def check_names(where: object, found: Collection[str], inputs: Sequence[TensorInfo]) -> None:
    """Exactly one array for each input."""
    wanted = [i.name for i in inputs]
    if set(found) != set(wanted):
        raise UsageError(
            f"{where}: holds {', '.join(sorted(found)) or 'nothing'}; the model's inputs are "
            f"{', '.join(wanted)}"
        )


def check_sample(where: object, info: TensorInfo, value: Array) -> Array:
    """One sample (no batch axis) in the dtype of the input."""
    _check_shape(where, info, value.shape)
    return _converted(where, info, value)


def check_samples(where: object, info: TensorInfo, values: Array) -> Array:
    """Samples along the first axis, in the dtype of the input."""
    _check_shape(where, info, values.shape[1:])
    return _converted(where, info, values)


def _check_shape(where: object, info: TensorInfo, shape: tuple[int, ...]) -> None:
    if info.shape is None:
        return
    wanted = info.shape[1:]
    fits = len(wanted) == len(shape) and all(
        not isinstance(d, int) or d == n for d, n in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{where}: a sample of {info.name!r} has shape {list(shape)}, "
            f"the model wants {list(wanted)}"
        )


def _converted(where: object, info: TensorInfo, value: Array) -> Array:
    """Floats of another width are cast, as are integers whose values fit.

    Anything else is refused: only the user knows how pixels become model inputs.
    """
    if value.dtype != info.dtype:
        if not _same_family(value.dtype, info.dtype):
            raise UsageError(
                f"{where}: {info.name!r} is {value.dtype}, the model wants {info.dtype}; convert it"
            )
        value = _cast(where, info, value)
    if value.dtype.kind == "f":
        _check_finite(where, info, value)
    return value


def _same_family(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    both = found.kind + wanted.kind
    return both == "ff" or (found.kind in INTEGERS and wanted.kind in INTEGERS)


def _cast(where: object, info: TensorInfo, value: Array) -> Array:
    if value.dtype.kind in INTEGERS and value.size:
        limits = np.iinfo(info.dtype)
        low, high = int(value.min()), int(value.max())
        if low < limits.min or high > limits.max:
            raise UsageError(
                f"{where}: {info.name!r} holds {low} to {high}, which {info.dtype} cannot hold"
            )
    with np.errstate(over="ignore"):  # what overflows is infinite, and found right after
        return value.astype(info.dtype)


def _check_finite(where: object, info: TensorInfo, value: Array) -> None:
    flat = value.reshape(-1)
    for start in range(0, flat.size, NUMBERS_OF_A_BATCH):
        if not np.isfinite(flat[start : start + NUMBERS_OF_A_BATCH]).all():
            raise UsageError(f"{where}: {info.name!r} holds NaN or infinity")


def check_labels(where: object, labels: Array, count: int) -> Array:
    """One class number for each sample."""
    if labels.ndim != 1 or len(labels) != count:
        raise UsageError(
            f"{where}: labels have shape {list(labels.shape)}, expected one for each of the "
            f"{count} samples"
        )
    if labels.dtype.kind not in INTEGERS:
        raise UsageError(f"{where}: labels are {labels.dtype}, expected class numbers")
    return labels
