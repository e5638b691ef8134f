"""The weights as one block of bytes, in the order in which the layers read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from infer_native.program import Array

ALIGNMENT = 64


class Weights:
    """Arrays one after the other, aligned; equal ones are stored once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._known: dict[tuple[str, bytes], int] = {}
        self.size = 0

    def add(self, array: Array) -> int:
        """The offset of an array."""
        raw = np.ascontiguousarray(array).tobytes()
        key = (array.dtype.name, raw)
        if key not in self._known:
            self._known[key] = self.size
            padded = raw + bytes(-len(raw) % ALIGNMENT)
            self._parts.append(padded)
            self.size += len(padded)
        return self._known[key]

    def data(self) -> bytes:
        """Everything, little-endian as this machine is."""
        return b"".join(self._parts)
