"""Templates of the report, and the filters that they use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def environment(*, html: bool) -> Environment:
    """Where templates are found; an unknown name in one is an error, not an empty place."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from infer_tool.report.terminal import speed_up
    from infer_tool.units import show_bytes

    made = Environment(
        loader=PackageLoader("infer_tool", "report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=html,  # noqa: S701 - Markdown has no markup to escape
    )
    made.filters["size"] = show_bytes
    made.filters["speed_up"] = speed_up
    return made
