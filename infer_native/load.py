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
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from infer_native.emit import Emitted, Port

Array = np.ndarray[Any, Any]
ALIGNMENT = 64


class NativeModel:
    """Runs an emitted model from its shared library.

    Raises:
        MissingExtraError: this machine lacks the instruction set.

    """

    def __init__(self, emitted: Emitted, library: Path, symbol: str = "model_run") -> None:
        if not runs_here(emitted.isa):
            raise MissingExtraError(
                f"this machine has no {emitted.isa.label}; emit with --isa auto to run here"
            )
        self.inputs = tuple(_info(p) for p in emitted.inputs)
        self.outputs = tuple(_info(p) for p in emitted.outputs)
        self._ports = emitted.outputs
        self._run = getattr(ctypes.CDLL(str(library)), symbol)
        self._run.restype = ctypes.c_int
        count = 2 + len(emitted.inputs) + len(emitted.outputs)
        self._run.argtypes = [ctypes.c_void_p] * count
        self._arena = _aligned(emitted.arena_bytes)
        self._weights = _aligned(len(emitted.weights))
        self._weights[: len(emitted.weights)] = np.frombuffer(emitted.weights, np.uint8)
        self._own = (_pointer(self._arena), _pointer(self._weights))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            FeedError: a feed is missing, unknown, or has another type or shape.

        """
        return self.bind(feeds)()

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """A function that runs the model on these arrays, and always fills the same outputs.

        Raises:
            FeedError: as from `run`.

        """
        arrays = [self._fed(info, feeds) for info in self.inputs]
        if len(feeds) != len(arrays):
            names = {info.name for info in self.inputs}
            unknown = next(name for name in feeds if name not in names)
            raise FeedError(f"no input named {unknown!r}; the inputs are {sorted(names)}")
        results = [np.empty(p.shape, p.dtype) for p in self._ports]
        named = {info.name: array for info, array in zip(self.outputs, results, strict=True)}
        kept = (self, arrays)  # the memory that the pointers show to
        pointers = (*self._own, *map(_pointer, arrays), *map(_pointer, results))

        def run(_: object = kept) -> dict[str, Array]:
            status = self._run(*pointers)
            if status:
                raise KernelError(f"the compiled model answers with error {status}")
            return named

        return run

    def _fed(self, info: TensorInfo, feeds: Mapping[str, Array]) -> Array:
        if info.name not in feeds:
            raise FeedError(f"input {info.name!r} has no feed")
        value = feeds[info.name]
        if type(value) is np.ndarray and value.dtype == info.dtype and value.shape == info.shape:
            return np.ascontiguousarray(value) if value.ndim else value
        return np.ascontiguousarray(checked_feed(info, value))


def _info(port: Port) -> TensorInfo:
    return TensorInfo(port.name, port.shape, np.dtype(port.dtype))


def _pointer(array: Array) -> int:
    """An empty array has no memory, but the pointer must not be null."""
    return int(array.__array_interface__["data"][0]) or ALIGNMENT


def _aligned(size: int) -> Array:
    raw = np.zeros(max(size, 1) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + max(size, 1)]
