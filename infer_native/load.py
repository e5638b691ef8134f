"""A compiled model in this process, through ctypes."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_native.isa import runs_here
from infer_runtime import TensorInfo
from infer_runtime.errors import FeedError, KernelError, MissingExtraError
from infer_runtime.session import checked_feed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from infer_native.emit import Emitted, Port

Array = np.ndarray[Any, Any]
ALIGNMENT = 64


class NativeModel:
    """Runs an emitted model from its shared library.

    Raises:
        MissingExtraError: this machine lacks the instruction set.

    """

    def __init__(self, emitted: Emitted, library: Path) -> None:
        if not runs_here(emitted.isa):
            raise MissingExtraError(
                f"this machine has no {emitted.isa.name}; emit with --isa auto to run here"
            )
        self.inputs = tuple(_info(p) for p in emitted.inputs)
        self.outputs = tuple(_info(p) for p in emitted.outputs)
        self._ports = emitted.outputs
        self._run = ctypes.CDLL(str(library)).model_run
        self._run.restype = ctypes.c_int
        self._arena = _aligned(emitted.arena_bytes)
        self._weights = _aligned(len(emitted.weights))
        self._weights[: len(emitted.weights)] = np.frombuffer(emitted.weights, np.uint8)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            FeedError: a feed is missing, unknown, or has another type or shape.

        """
        arrays = [self._fed(info, feeds) for info in self.inputs]
        names = {info.name for info in self.inputs}
        for name in feeds:
            if name not in names:
                raise FeedError(f"no input named {name!r}; the inputs are {sorted(names)}")
        results = [np.empty(p.shape, p.dtype) for p in self._ports]
        everything = (self._arena, self._weights, *arrays, *results)
        status = self._run(*(ctypes.c_void_p(_pointer(a)) for a in everything))
        if status:
            raise KernelError(f"the compiled model answers with error {status}")
        return {info.name: array for info, array in zip(self.outputs, results, strict=True)}

    def _fed(self, info: TensorInfo, feeds: Mapping[str, Array]) -> Array:
        if info.name not in feeds:
            raise FeedError(f"input {info.name!r} has no feed")
        return np.ascontiguousarray(checked_feed(info, feeds[info.name]))


def _info(port: Port) -> TensorInfo:
    return TensorInfo(port.name, port.shape, np.dtype(port.dtype))


def _pointer(array: Array) -> int:
    """An empty array has no memory, but the pointer must not be null."""
    return int(array.ctypes.data) or ALIGNMENT


def _aligned(size: int) -> Array:
    raw = np.zeros(max(size, 1) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + max(size, 1)]
