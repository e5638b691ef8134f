"""The version of this tool, from its installed metadata."""

from __future__ import annotations


def version() -> str:
    """Version of the installed distribution, or '0+unknown' when run from a bare checkout."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("infertool")
    except PackageNotFoundError:
        return "0+unknown"
