"""A time limit ends work whatever that does with errors."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infer_runtime.errors import GateError, TimeIsUp, TimeLimitError
from infer_tool.limits import time_limit

if TYPE_CHECKING:
    from collections.abc import Callable


def _busy() -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass


def _deaf() -> None:
    """As libraries do that carry on after any error."""
    with suppress(Exception):
        _busy()


def _import() -> None:
    """As native code does that ends in an error of its own."""
    try:
        _busy()
    except TimeIsUp as error:
        raise ImportError("initialization failed") from error


def _gate() -> None:
    with suppress(TimeIsUp):
        _busy()
    raise GateError("missed")


class _Dropped:
    """What its end raises, Python only prints."""

    def __del__(self) -> None:
        _busy()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_alarm_that_was_lost_rings_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer_tool.limits.AGAIN", 0.05)
    left: list[str] = []

    def work() -> None:
        del [_Dropped()][0]
        try:
            _busy()
        finally:
            end = time.monotonic() + 0.3
            while time.monotonic() < end:  # clean-up is let alone
                pass
            left.append("clean")

    with pytest.raises(TimeLimitError), time_limit("10ms"):
        work()
    assert left == ["clean"]


def test_one_who_ends_in_another_way_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer_tool.limits.AGAIN", 0.02)
    with time_limit("10ms"):
        try:
            _busy()
        except TimeIsUp as error:
            error.heard = True
        time.sleep(0.2)


def _broken() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("work", "wanted"),
    [
        (_busy, TimeLimitError),
        (_deaf, TimeLimitError),
        (_import, TimeLimitError),
        (_gate, GateError),
        (_broken, ZeroDivisionError),
    ],
)
def test_what_a_limit_ends_in(work: Callable[[], None], wanted: type[Exception]) -> None:
    with pytest.raises(wanted), time_limit("10ms"):
        work()


def test_after_an_engine_with_a_signal_stack_of_its_own() -> None:
    pytest.importorskip("openvino")
    from infer_tool.engines import open_engine

    model = Path(__file__).parents[2] / "sample_models" / "digits_mlp.onnx"
    engine = open_engine("openvino", model)
    with pytest.raises(TimeLimitError), time_limit("10ms"):
        _busy()
    assert engine.inputs
