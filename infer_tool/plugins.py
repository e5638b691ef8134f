"""Importers, passes, engines and metrics of other packages, found by their entry points.

A package names them in its pyproject.toml, in the group of their kind:

    [project.entry-points."infertool.metrics"]
    margin = "my_package.margin:margin"

Nothing of a plugin is imported before it is needed. A plugin never takes the place of what is
built in.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.reason import reason

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUPS = ("engines", "importers", "metrics", "passes")


def plugins(kind: str) -> dict[str, Any]:
    """All plugins of a kind, loaded, by name."""
    return {name: load_plugin(kind, name) for name in names(kind)}


def names(kind: str) -> tuple[str, ...]:
    """Names of the plugins of a kind, in order; imports none of them."""
    return tuple(_found(kind))


@cache
def load_plugin(kind: str, name: str) -> Any:
    """Import one.

    Raises:
        UsageError: there is none, or its package cannot be imported.

    """
    point = _found(kind).get(name)
    if point is None:
        raise UsageError(
            f"no plugin {name!r} for {kind}; there are {', '.join(names(kind)) or '-'}"
        )
    try:
        return point.load()
    except Exception as error:
        # Any class can come out of code that is not ours; the user must know whose it is.
        package = point.dist.name if point.dist else point.value
        raise UsageError(
            f"plugin {name!r} of {package} cannot be loaded: {reason(error)}"
        ) from error


@cache
def _found(kind: str) -> dict[str, EntryPoint]:
    return {p.name: p for p in sorted(entry_points(group=f"infertool.{kind}"))}
