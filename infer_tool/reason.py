"""Why foreign code failed, in one line."""

from __future__ import annotations

LENGTH = 200


def reason(error: BaseException) -> str:
    """Class and first line of the innermost cause: the outer ones only say that it failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:LENGTH]}" if lines else type(error).__name__
