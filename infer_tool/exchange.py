"""Named arrays between two processes of this tool: an .npz and the types that NumPy cannot save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Types = list[tuple[str, str]]  # name and dtype of each array, in order


def write(path: Path, arrays: Mapping[str, Any]) -> Types:
    """Save; the types go to the reader by another way."""
    found = {name: np.asarray(value) for name, value in arrays.items()}
    # savez takes its own parameter names for arrays' names: number them.
    np.savez(path, **{f"v{i}": _plain(value) for i, value in enumerate(found.values())})
    return [(name, value.dtype.name) for name, value in found.items()]


def read(path: Path, types: Types) -> dict[str, Any]:
    """What `write` saved."""
    with np.load(path, allow_pickle=False) as saved:
        return {name: _typed(saved[f"v{i}"], dtype) for i, (name, dtype) in enumerate(types)}


def _plain(value: Any) -> Any:
    """Strings without pickling, types of ml_dtypes as the bits that they are."""
    if value.dtype.kind in "OUS":
        return (
            np.array([_text(item) for item in value.ravel()] or [""])
            .astype(str)[: value.size]
            .reshape(value.shape)
        )
    if value.dtype.kind == "V":
        return value.view(f"u{value.dtype.itemsize}")
    return value


def _text(item: Any) -> str:
    return item.decode(errors="surrogateescape") if isinstance(item, bytes) else str(item)


def _typed(value: Any, dtype: str) -> Any:
    if value.dtype.kind == "U":
        return value.astype(object)
    if value.dtype.name != dtype:
        import ml_dtypes

        return value.view(getattr(ml_dtypes, dtype))
    return value
