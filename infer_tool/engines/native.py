"""Emitted C as an engine: compiled on demand, kept in a cache by its content."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_native import NativeModel, build_library, emit_model
from infer_native.build import find_compiler
from infer_native.prepare import OLDEST_OPSET
from infer_runtime import Session
from infer_runtime.errors import MissingExtraError
from infer_runtime.session import checked_feed
from infer_tool.importers.opset import convert_opset
from infer_tool.version import version as own_version
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    Array = np.ndarray[Any, Any]


class NativeEngine:
    """One compiled model for each set of input shapes that it meets.

    Raises:
        UnsupportedOpError: the emitter has no kernel for an operator, or an input has no fixed
            rank; found when the model is opened with shapes, else when it first runs.

    """

    name = "native"

    def __init__(
        self, model: str | Path | ir.Model, shapes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.version = version()
        self._model = _loaded(model)
        self._session = Session(self._model)
        self.inputs, self.outputs = self._session.inputs, self._session.outputs
        self._compiled: dict[tuple[tuple[int, ...], ...], NativeModel] = {}
        fixed = all(
            i.shape is not None and all(isinstance(d, int) for d in i.shape) for i in self.inputs
        )
        if fixed and has_compiler():
            self._compile({i.name: i.shape or () for i in self.inputs})  # type: ignore[misc]
        elif shapes and has_compiler() and {i.name for i in self.inputs} <= shapes.keys():
            known = {i.name for i in self.inputs}
            if all(len(shapes[i.name]) == len(i.shape or ()) for i in self.inputs):
                self._compile({n: tuple(s) for n, s in shapes.items() if n in known})

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name; the first run with new shapes compiles."""
        if not has_compiler():
            return self._session.run(feeds)
        key = tuple(tuple(feeds[i.name].shape) for i in self.inputs if i.name in feeds)
        if key not in self._compiled:
            checked = self._checked(feeds)
            self._compile({name: value.shape for name, value in checked.items()})
        return self._compiled[key].run(feeds)

    def _checked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Feeds that fit; the session's own check names what does not."""
        infos = {i.name: i for i in self.inputs}
        if feeds.keys() != infos.keys():
            self._session.run(feeds)  # raises, naming the feed
        return {name: checked_feed(infos[name], value) for name, value in feeds.items()}

    def _compile(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        emitted = emit_model(self._model, shapes)
        key = tuple(tuple(shapes[i.name]) for i in self.inputs)
        self._compiled[key] = NativeModel(emitted, build_library(emitted))


def open_model(
    model: str | Path | ir.Model,
    threads: int,  # noqa: ARG001 - emitted code runs on the thread of its caller
    optimize: bool,  # noqa: ARG001 - the emitter always runs the exact passes
    shapes: Mapping[str, Sequence[int]],
    lean: bool = False,  # noqa: ARG001 - weights are packed once
) -> NativeEngine:
    """Load a model; without a compiler the reference runtime computes it, with a warning."""
    if not has_compiler():
        warnings.warn(
            "engine native: no C compiler here, the reference runtime computes; run: "
            "pip install 'infertool[native]'",
            stacklevel=2,
        )
    return NativeEngine(model, shapes)


def version() -> str:
    """The version of this package."""
    return own_version()


def has_compiler() -> bool:
    """Can emitted C be compiled here?"""
    try:
        find_compiler()
    except MissingExtraError:
        return False
    return True


def _loaded(model: str | Path | ir.Model) -> ir.Model:
    """The model at an opset that the emitter reads."""
    if isinstance(model, (str, os.PathLike)):
        Session(model)  # a file that is no model is refused here, by its name
        loaded = ir.load(model)
    else:
        loaded = model
    if opset(loaded) < OLDEST_OPSET:
        loaded = loaded.clone()
        convert_opset(loaded, 20, "the model")
    return loaded
