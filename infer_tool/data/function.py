"""Functions that the user names: package.module:function or file.py:function."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


def load_function(spec: str) -> Callable[..., Any]:
    """Import the module and return the function; this runs the module's code.

    Raises:
        UsageError: no such module, file or function, or its code fails.

    """
    where, _, name = spec.rpartition(":")
    try:
        with _at_home():
            module = _load_file(where) if where.endswith(".py") else importlib.import_module(where)
    except Exception as error:
        # The user's own code: whatever it raises is the answer.
        raise UsageError(f"{spec}: cannot import {where!r}: {reason(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"{spec}: {where!r} has no function {name!r}")
    found: Callable[..., Any] = function
    return found


@contextlib.contextmanager
def _at_home() -> Iterator[None]:
    """Modules of the working folder can be named; what they print leaves stdout alone."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)


def _load_file(where: str) -> ModuleType:
    path = Path(where)
    if not path.is_file():
        raise FileNotFoundError(f"no such file {where}")
    name = f"infertool_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
