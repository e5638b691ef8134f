"""Reading FlatBuffers without trusting them: every offset is checked before it is followed.

The format: https://flatbuffers.dev/internals. A table starts with the distance back to its vtable,
which holds for each field its place in the table, or 0 for the default. Distances to vectors,
texts and other tables lead forwards.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from infer_runtime.errors import ModelError

Array = np.ndarray[Any, Any]

_FORMATS = {
    "bool": "<?", "int8": "<b", "uint8": "<B", "uint16": "<H", "int32": "<i", "uint32": "<I",
    "int64": "<q", "uint64": "<Q", "float32": "<f",
}  # fmt: skip
_UNPACK = {kind: struct.Struct(text) for kind, text in _FORMATS.items()}
_OFFSET = 4  # bytes of a distance, and of the length of a vector
_SLOT = 2  # bytes of an entry of a vtable
_FIRST_SLOT = 4  # after the sizes of the vtable and of the table
_LONGEST_TEXT = 4096


class Reader:
    """The bytes of a file, and how many more items may be read from it.

    Offsets may lead to one table many times, so that a small file unfolds into a huge one; an
    honest file has no more items than bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._budget = len(data)

    def root(self) -> Table:
        """The table that the file starts with."""
        return Table(self, self.number("uint32", 0))

    def number(self, kind: str, position: int) -> Any:
        """One number.

        Raises:
            ModelError: it lies outside the file.

        """
        unpack = _UNPACK[kind]
        if not 0 <= position <= len(self.data) - unpack.size:
            raise ModelError(f"an offset leads to byte {position} of {len(self.data)}")
        return unpack.unpack_from(self.data, position)[0]

    def follow(self, position: int) -> int:
        """Where the distance at a position leads."""
        return position + int(self.number("uint32", position))

    def vector(self, position: int, size: int) -> tuple[int, int]:
        """Start and count of the vector at a position, whose items have `size` bytes.

        Raises:
            ModelError: it does not end inside the file.

        """
        count, start = int(self.number("uint32", position)), position + _OFFSET
        if start + count * size > len(self.data):
            raise ModelError(f"a vector of {count} items at byte {position} ends after the file")
        return start, count

    def spend(self, count: int) -> None:
        """Count items that were read.

        Raises:
            ModelError: more than an honest file can hold.

        """
        self._budget -= count
        if self._budget < 0:
            raise ModelError("its parts overlap: it unfolds into more than it can hold")


class Table:
    """One table; fields are read by their slot, the number in the schema's order."""

    __slots__ = ("_fields", "_position", "_reader", "_size")

    def __init__(self, reader: Reader, position: int) -> None:
        reader.spend(_OFFSET)
        vtable = position - int(reader.number("int32", position))
        length = int(reader.number("uint16", vtable))
        self._size = int(reader.number("uint16", vtable + _SLOT))
        if length < _FIRST_SLOT or length % _SLOT or vtable + length > len(reader.data):
            raise ModelError(f"the table at byte {position} has a damaged list of fields")
        count = (length - _FIRST_SLOT) // _SLOT
        self._fields = struct.unpack_from(f"<{count}H", reader.data, vtable + _FIRST_SLOT)
        self._position, self._reader = position, reader

    def has(self, slot: int) -> bool:
        """Is the field stored? Else it has its default."""
        return slot < len(self._fields) and self._fields[slot] != 0

    def number(self, slot: int, kind: str, default: Any = 0) -> Any:
        """A scalar field."""
        place = self._place(slot, _UNPACK[kind].size)
        return default if place is None else self._reader.number(kind, place)

    def text(self, slot: int) -> str:
        """A string field; bytes that are no UTF-8 are replaced."""
        place = self._place(slot, _OFFSET)
        if place is None:
            return ""
        start, count = self._reader.vector(self._reader.follow(place), 1)
        if count > _LONGEST_TEXT:
            raise ModelError(f"a name at byte {start} has {count} bytes")
        return self._reader.data[start : start + count].decode(errors="replace")

    def table(self, slot: int) -> Table | None:
        """A field that is a table of its own."""
        place = self._place(slot, _OFFSET)
        return None if place is None else Table(self._reader, self._reader.follow(place))

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables."""
        place = self._place(slot, _OFFSET)
        if place is None:
            return []
        start, count = self._reader.vector(self._reader.follow(place), _OFFSET)
        self._reader.spend(count * _OFFSET)
        follow = self._reader.follow
        return [Table(self._reader, follow(start + i * _OFFSET)) for i in range(count)]

    def numbers(self, slot: int, kind: str) -> Array:
        """A vector of numbers, as a view into the file; empty where there is none."""
        dtype = np.dtype(kind).newbyteorder("<")
        place = self._place(slot, _OFFSET)
        if place is None:
            return np.zeros(0, dtype)
        start, count = self._reader.vector(self._reader.follow(place), dtype.itemsize)
        return np.frombuffer(self._reader.data, dtype, count, start)

    def integers(self, slot: int, kind: str = "int32") -> tuple[int, ...]:
        """A short vector of integers as Python has them."""
        found = self.numbers(slot, kind)
        self._reader.spend(found.nbytes)
        return tuple(int(v) for v in found)

    def _place(self, slot: int, size: int) -> int | None:
        """Where in the file a field lies."""
        if not self.has(slot):
            return None
        if self._fields[slot] + size > self._size:
            raise ModelError(f"field {slot} of the table at byte {self._position} is outside it")
        return self._position + int(self._fields[slot])
