"""Quantities as people write them: 0.5%, 5.3MB, 5ms."""

from __future__ import annotations

import re

from infer_runtime.errors import UsageError

_NUMBER = re.compile(r"\s*([+-]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zA-Z%]*)\s*", re.IGNORECASE)
_BYTES = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_MILLISECONDS = {"": 1.0, "ms": 1.0, "us": 1e-3, "s": 1e3}
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_SHARES = {"": 1.0, "%": 0.01}


def parse_share(text: str, option: str) -> float:
    """'0.5%' -> 0.005, '0.95' -> 0.95."""
    return _parse(text, option, _SHARES, "a share such as 0.5% or 0.005")


def parse_part(text: str, option: str) -> float:
    """A share of which something stays and something goes: more than 0, less than 1.

    Raises:
        UsageError: it is no such share.

    """
    share = parse_share(text, option)
    if not 0 < share < 1:
        raise UsageError(f"--{option} {text}: expected more than 0% and less than 100%")
    return share


def parse_bytes(text: str, option: str) -> int:
    """'5.3MB' -> 5300000 (decimal units; kiB, MiB and GiB are binary)."""
    return int(_parse(text, option, {k: float(v) for k, v in _BYTES.items()}, "a size such as 5MB"))


def parse_milliseconds(text: str, option: str) -> float:
    """'5ms' -> 5.0, '0.2s' -> 200.0."""
    return _parse(text, option, _MILLISECONDS, "a time such as 5ms")


def parse_seconds(text: str, option: str) -> float:
    """'90s' -> 90.0, '10min' -> 600.0; UsageError unless positive."""
    seconds = _parse(text, option, _SECONDS, "a time such as 90s or 10min")
    if seconds <= 0:
        raise UsageError(f"--{option} {text!r}: expected more than 0")
    return seconds


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """'x:1x3x224x224' -> ('x', (1, 3, 224, 224))."""
    name, _, dims = text.rpartition(":")
    try:
        shape = tuple(int(d) for d in dims.split("x")) if dims else ()
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise UsageError(f"--shape {text!r}: expected name:1x3x224x224")
    return name, shape


def show_bytes(count: int) -> str:
    """1234567 -> '1.23 MB'."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _parse(text: str, option: str, units: dict[str, float], expected: str) -> float:
    match = _NUMBER.fullmatch(text)
    if not match or match[2].lower() not in units:
        raise UsageError(f"--{option} {text!r}: expected {expected}")
    return float(match[1]) * units[match[2].lower()]
