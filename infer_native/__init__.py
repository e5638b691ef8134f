"""Graph to dependency-free C: lowering, kernels, one arena, build and load.

`emit_model(model, shapes, isa) -> Emitted` writes the sources, `build_library` compiles them,
`NativeModel` runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infer_native.build import build_library
    from infer_native.emit import Emitted, emit_model
    from infer_native.load import NativeModel

__all__ = ["Emitted", "NativeModel", "build_library", "emit_model"]

_HOME = {"Emitted": "emit", "NativeModel": "load", "build_library": "build", "emit_model": "emit"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"infer_native.{_HOME[name]}"), name)
