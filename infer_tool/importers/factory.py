"""Sources that are code of the user: which framework it is of, and calling it.

`package.module:factory` or `file.py:factory` runs the code that the user names. What the code
imports says which framework's process it is run in; what it returns has the last word.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import InferError, UsageError
from infer_tool.data.function import load_function
from infer_tool.quiet import quiet
from infer_tool.reason import reason
from infer_tool.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Root package -> kind of source.
KINDS = {
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "flax": "jax",
    "equinox": "jax",
    "paddle": "paddle",
    "mindspore": "mindspore",
}
DEFAULT = "torch"


def factory_kind(source: str) -> str:
    """A key of FORMATS. Code that imports several frameworks is run, in a child process."""
    found = _imported(source)
    if len(found) > 1:
        kind: str = Worker("infer_tool.importers.factory", source, {}).facts["kind"]
        return kind
    return next(iter(found), DEFAULT)


def open_source(
    source: str, _: Path, __: Mapping[str, Any]
) -> tuple[Callable[[Mapping[str, Any]], Mapping[str, Any]], dict[str, Any]]:
    """In the child: call the factory and look at what it returns."""
    kind = kind_of(call_factory(source))
    return dict, {"kind": kind}


def kind_of(made: object) -> str:
    """By the classes of an object; a plain function is one of JAX."""
    for cls in type(made).__mro__:
        root = cls.__module__.partition(".")[0]
        if root in KINDS:
            return KINDS[root]
    return "jax" if callable(made) else DEFAULT


def call_factory(source: str) -> Any:
    """What the user's function returns.

    Raises:
        UsageError: there is no such code, or it fails.

    """
    factory = load_function(source)
    try:
        with quiet():
            return factory()
    except InferError:
        raise
    except Exception as error:
        # The user's own code: whatever it raises is the answer.
        raise UsageError(f"{source}: the factory failed: {reason(error)}") from error


def are_parameters(parameters: Iterable[str], names: list[str], source: str) -> bool:
    """Whether the inputs are named like parameters; if none is, they go by position.

    Raises:
        UsageError: only some of them are, which is a slip of the pen.

    """
    known = [name in parameters for name in names]
    if any(known) and not all(known):
        wrong = names[known.index(False)]
        raise UsageError(f"--input {wrong}: {source} takes {', '.join(parameters)}")
    return all(known)


def _imported(source: str) -> dict[str, None]:
    """Kinds of the frameworks that the code imports, in order."""
    path = _file(source.rpartition(":")[0])
    try:
        tree = ast.parse(path.read_bytes()) if path is not None else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return {}  # said better when it is run
    names = [name for node in ast.walk(tree) for name in _names(node)]
    roots = (name.partition(".")[0] for name in names)
    return {KINDS[root]: None for root in roots if root in KINDS}


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def _file(where: str) -> Path | None:
    """The file of a module, found without running the packages around it."""
    if where.endswith(".py"):
        return Path(where)
    places = (str(Path.cwd()), *sys.path)
    bases = (Path(place).joinpath(*where.split(".")) for place in places)
    files = (file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py"))
    return next((file for file in files if file.is_file()), None)
