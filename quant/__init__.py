"""Lossy graph -> graph: quantisation. Light to import: the names load on use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quant.model import Quantized, quantize_model

__all__ = ["Quantized", "quantize_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("quant.model"), name)
