"""The constants of a file as arrays: little-endian numbers, packed small integers, sparse trees."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.names import DTYPES
from infer_tool.importers.tflite.sparse import densify

if TYPE_CHECKING:
    from infer_tool.importers.tflite.flatbuffer import Array
    from infer_tool.importers.tflite.schema import File, Tensor

PACKED = {"INT4": 4, "UINT4": 4, "INT2": 2}  # bits of types of which a byte holds several
# A sparse tensor may grow by this factor, and to this many elements, whatever it holds.
_GROWTH, _SMALL = 4096, 1 << 20


def constant(file: File, tensor: Tensor) -> Array | None:
    """The value of a tensor that has one in the file, in its stored type.

    Raises:
        ModelError: the bytes do not fit shape and type.

    """
    raw = _bytes(file, tensor)
    if raw is None or tensor.type not in DTYPES or tensor.type == "RESOURCE":
        return None
    if tensor.sparsity is not None:
        return _dense(tensor, raw)
    count = prod(tensor.shape)
    if tensor.type in PACKED:
        return _unpacked(tensor, raw, PACKED[tensor.type], count)
    values = _typed(tensor, raw)
    wanted = (*tensor.shape, 2) if tensor.type == "COMPLEX64" else tensor.shape
    if values.size != prod(wanted):
        raise ModelError(
            f"tensor {tensor.index} has {values.size} values, its shape {list(wanted)} needs "
            f"{prod(wanted)}"
        )
    return values.reshape(wanted)


def _bytes(file: File, tensor: Tensor) -> Array | None:
    """The buffer of a tensor; files larger than 2 GB keep their data behind the flatbuffer."""
    if tensor.buffer == 0:
        return None
    buffer = file.buffers[tensor.buffer]
    found = buffer.numbers(0, "uint8")
    offset, size = buffer.number(1, "uint64"), buffer.number(2, "uint64")
    if len(found) or offset <= 1:
        return found if len(found) else None
    if offset + size > len(file.data):
        raise ModelError(f"buffer {tensor.buffer} ends after the file")
    return np.frombuffer(file.data, np.uint8, size, offset)


def _typed(tensor: Tensor, raw: Array) -> Array:
    dtype = DTYPES[tensor.type].numpy()
    if len(raw) % dtype.itemsize:
        raise ModelError(f"tensor {tensor.index} has {len(raw)} bytes, no multiple of its type")
    return raw.view(dtype)


def _unpacked(tensor: Tensor, raw: Array, bits: int, count: int) -> Array:
    """Integers of less than a byte, the first in the lowest bits, as their own NumPy type."""
    each = 8 // bits
    if len(raw) != -(-count // each):
        raise ModelError(f"tensor {tensor.index} has {len(raw)} bytes for {count} values")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((raw[:, None] >> shifts) & (2**bits - 1)).reshape(-1)[:count]
    if tensor.type.startswith("INT"):
        half = 2 ** (bits - 1)
        values = ((values ^ half).astype(np.int8) - np.int8(half)).astype(np.int8)
    typed: Array = values.astype(DTYPES[tensor.type].numpy())
    return typed.reshape(tensor.shape)


def _dense(tensor: Tensor, raw: Array) -> Array:
    assert tensor.sparsity is not None
    if tensor.type in PACKED:
        raise ModelError(f"tensor {tensor.index} is sparse and of type {tensor.type}")
    values, size = _typed(tensor, raw), prod(tensor.shape)
    if size > max(len(values) * _GROWTH, _SMALL):
        raise ModelError(f"tensor {tensor.index} has {len(values)} values for {size} elements")
    return densify(tensor.sparsity, values, tensor.shape)
