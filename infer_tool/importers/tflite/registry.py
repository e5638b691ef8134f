"""Which function imports which operator."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from infer_tool.importers.tflite.call import Call

    Handler = Callable[[Call], None]

_HANDLERS: dict[str, Handler] = {}


def op(*names: str) -> Callable[[Handler], Handler]:
    """Register a function for operators of these names."""

    def register(handler: Handler) -> Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


@cache
def handlers() -> dict[str, Handler]:
    """All of them, by the name of the operator."""
    from infer_tool.importers.tflite import ops

    for module in iter_modules(ops.__path__):
        import_module(f"{ops.__name__}.{module.name}")
    return _HANDLERS
