"""Quantities as people write them."""

from __future__ import annotations

import pytest

from infer_runtime.errors import UsageError
from infer_tool.units import (
    parse_bytes,
    parse_milliseconds,
    parse_shape,
    parse_share,
    show_bytes,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5%", 0.005), ("0.005", 0.005), ("95 %", 0.95), ("0", 0.0), ("-1%", -0.01)],
)
def test_share(text: str, value: float) -> None:
    assert parse_share(text, "max-drop") == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5.3MB", 5_300_000), ("900kB", 900_000), ("2MiB", 2 * 2**20), ("17", 17), ("1 gb", 10**9)],
)
def test_bytes(text: str, value: int) -> None:
    assert parse_bytes(text, "max-size") == value


@pytest.mark.parametrize(("text", "value"), [("5ms", 5.0), ("0.2s", 200.0), ("3", 3.0)])
def test_milliseconds(text: str, value: float) -> None:
    assert parse_milliseconds(text, "max-latency") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "abc", "5 parsecs", "5%%", "1e", "nan", "inf"])
def test_nonsense_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--max-drop"):
        parse_share(text, "max-drop")


def test_shape() -> None:
    assert parse_shape("x:1x3x8") == ("x", (1, 3, 8))
    assert parse_shape("a:b:2") == ("a:b", (2,))


@pytest.mark.parametrize("text", ["x", "x:", ":1x2", "x:1xb", "x:0x2", "x:-1"])
def test_bad_shape(text: str) -> None:
    with pytest.raises(UsageError, match="--shape"):
        parse_shape(text)


def test_show_bytes() -> None:
    assert [show_bytes(n) for n in (999, 1000, 5_170_000, 2 * 10**9)] == [
        "999 B",
        "1.00 kB",
        "5.17 MB",
        "2.00 GB",
    ]
