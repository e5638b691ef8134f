"""The safetensors format: eight bytes of length, a JSON header, the data.

Source: the format's own description in the documentation of Hugging Face's safetensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

LENGTH = 8
LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
# Name in the file, name in torch; those that NumPy has not travel as integers of their size.
TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies."""

    dtype: str  # a key of TYPES
    shape: tuple[int, ...]
    start: int  # from the beginning of the file
    end: int


def looks_like(head: bytes) -> bool:
    """Is this the beginning of such a file?"""
    size = int.from_bytes(head[:LENGTH], "little")
    return 1 < size <= LARGEST_HEADER and head[LENGTH : LENGTH + 2] == b'{"'


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of a file, every one checked to lie inside it.

    Raises:
        ModelError: damaged, naming the tensor.

    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(LENGTH), "little")
        if not 1 < length <= min(LARGEST_HEADER, size - LENGTH):
            raise ModelError(f"{path}: not a safetensors file, or damaged; copy it again")
        document = _parsed(path, handle.read(length))
    document.pop("__metadata__", None)
    base = LENGTH + length
    entries = {name: _entry(path, name, item, base) for name, item in document.items()}
    _check_layout(path, entries, base, size)
    return entries


def _parsed(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its header is damaged; copy it again") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: its header is damaged; copy it again")
    return document


def _entry(path: Path, name: str, item: Any, base: int) -> Entry:
    fields = item if isinstance(item, dict) else {}
    dtype, shape, place = (fields.get(k, 0) for k in ("dtype", "shape", "data_offsets"))
    if not (_naturals(shape) and _naturals(place) and len(place) == 2 and isinstance(dtype, str)):
        raise ModelError(f"{path}: tensor {name!r} is damaged; copy it again")
    if dtype not in TYPES:
        raise ModelError(f"{path}: tensor {name!r} has type {dtype[:20]!r}, which is not supported")
    if place[1] - place[0] != prod(shape) * SIZES[dtype]:
        raise ModelError(f"{path}: tensor {name!r} has not the bytes of its shape; copy it again")
    return Entry(dtype, tuple(shape), base + place[0], base + place[1])


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 1 << 62 for v in values)


def _check_layout(path: Path, entries: dict[str, Entry], base: int, size: int) -> None:
    """One tensor after the other, without holes, to the end of the file: the format says so."""
    at = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != at:
            raise ModelError(f"{path}: tensor {name!r} lies at a wrong place; copy it again")
        at = entry.end
    if at != size:
        raise ModelError(f"{path}: has {size} bytes, its header says {at}; copy it again")


def load_tensors(path: Path) -> dict[str, Any]:
    """torch tensors on a private mapping of the file."""
    import numpy as np
    import torch

    whole = np.memmap(path, np.uint8, "c")
    found = {}
    for name, entry in read_header(path).items():
        raw = torch.from_numpy(np.asarray(whole[entry.start : entry.end]).copy())
        found[name] = raw.view(getattr(torch, TYPES[entry.dtype])).reshape(entry.shape)
    return found
