"""Do arrays fit the inputs of a model? Every answer names the file and both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]


def check_names(where: object, found: Collection[str], inputs: Sequence[TensorInfo]) -> None:
    """Exactly one array for each input."""
    wanted = [i.name for i in inputs]
    missing = [n for n in wanted if n not in found]
    extra = [n for n in found if n not in wanted]
    if missing or extra:
        raise UsageError(
            f"{where}: holds {', '.join(sorted(found)) or 'nothing'}; the model's inputs are "
            f"{', '.join(wanted)}"
        )


def check_sample(where: object, info: TensorInfo, value: Array) -> Array:
    """One sample (no batch axis) in the dtype of the input.

    Floats of another width are cast, and integers that keep their value; anything else is refused,
    since only the user knows how pixels become model inputs.
    """
    _check_shape(where, info, value)
    if value.dtype != info.dtype:
        if not _castable(value, info.dtype):
            raise UsageError(
                f"{where}: {info.name!r} is {value.dtype}, the model wants {info.dtype}; convert it"
            )
        value = value.astype(info.dtype)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise UsageError(f"{where}: {info.name!r} holds NaN or infinity")
    return value


def _castable(value: Array, dtype: np.dtype[Any]) -> bool:
    """Float to float; integers when no value changes."""
    if value.dtype.kind == dtype.kind == "f":
        return True
    if value.dtype.kind in "iu" and dtype.kind in "iu":
        return bool(np.array_equal(value.astype(dtype).astype(value.dtype), value))
    return False


def _check_shape(where: object, info: TensorInfo, value: Array) -> None:
    if info.shape is None:
        return
    wanted = info.shape[1:]
    fits = len(wanted) == value.ndim and all(
        not isinstance(d, int) or d == n for d, n in zip(wanted, value.shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{where}: a sample of {info.name!r} has shape {list(value.shape)}, "
            f"the model wants {list(wanted)}"
        )


def check_labels(where: object, labels: Array, count: int) -> Array:
    """One number for each sample."""
    if len(labels) != count or labels.ndim != 1:
        raise UsageError(
            f"{where}: labels have shape {list(labels.shape)}, expected one for each of the "
            f"{count} samples"
        )
    if labels.dtype.kind not in "iu":
        raise UsageError(f"{where}: labels are {labels.dtype}, expected class numbers")
    return labels
