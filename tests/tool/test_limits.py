"""A limit of time or memory ends work whatever that does with errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from infer_runtime.errors import GateError, LimitError, LimitIsUp, UsageError
from infer_tool.held_memory import held_bytes
from infer_tool.limits import memory_limit, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 10**6
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


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
    except LimitIsUp as error:
        raise ImportError("initialization failed") from error


def _gate() -> None:
    with suppress(LimitIsUp):
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

    with pytest.raises(LimitError), time_limit("10ms"):
        work()
    assert left == ["clean"]


def test_one_who_ends_in_another_way_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infer_tool.limits.AGAIN", 0.02)
    with time_limit("10ms"):
        try:
            _busy()
        except LimitIsUp as error:
            error.heard = True
        time.sleep(0.2)


def _broken() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("work", "wanted"),
    [
        (_busy, LimitError),
        (_deaf, LimitError),
        (_import, LimitError),
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
    with pytest.raises(LimitError), time_limit("10ms"):
        _busy()
    assert engine.inputs


def _more(megabytes: int) -> str:
    """A limit so far above what is held now."""
    held = held_bytes(os.getpid())
    assert held is not None
    return f"{held // MEGABYTE + megabytes}MB"


def _grow() -> None:
    """A megabyte each few milliseconds, without an end of its own for 20 seconds."""
    end, kept = time.monotonic() + 20, []
    while time.monotonic() < end:
        kept.append(b"x" * MEGABYTE)
        time.sleep(0.002)


def _grow_elsewhere() -> None:
    grow = f"x = b'x' * {200 * MEGABYTE}; import time; time.sleep(20)"
    with subprocess.Popen([sys.executable, "-c", grow]) as child:
        try:
            child.wait()
        finally:
            child.kill()


@linux
@pytest.mark.parametrize("work", [_grow, _grow_elsewhere])
def test_a_memory_limit_ends_what_holds_more(work: Callable[[], None]) -> None:
    start = time.monotonic()
    with pytest.raises(LimitError, match="the memory limit of"), memory_limit(_more(100)):
        work()
    assert time.monotonic() - start < 15
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


@linux
def test_a_memory_limit_leaves_alone_what_holds_less() -> None:
    with memory_limit(_more(500)):
        kept = b"x" * 50 * MEGABYTE
        time.sleep(0.3)
    assert len(kept) == 50 * MEGABYTE


@linux
def test_one_who_hears_the_memory_limit_goes_on() -> None:
    with memory_limit(_more(100)):
        try:
            _grow()
        except LimitIsUp as error:
            error.heard = True
        time.sleep(0.3)


@linux
def test_a_time_limit_inside_a_memory_limit_keeps_its_name() -> None:
    late = pytest.raises(LimitError, match="time budget")
    with late, memory_limit(_more(500)), time_limit("10ms"):
        _busy()
    large = pytest.raises(LimitError, match="memory limit")
    with large, time_limit("60s"), memory_limit(_more(50)):
        _grow()


@linux
def test_a_limit_that_is_passed_already_is_refused() -> None:
    with pytest.raises(UsageError, match="this process alone holds"), memory_limit("1kB"):
        pass


@linux
def test_one_step_that_takes_everything_is_killed() -> None:
    code = (
        "import numpy as np; from infer_tool.limits import memory_limit\n"
        f"with memory_limit('{200}MB'):\n"
        "    np.sort(np.random.default_rng(0).random(200_000_000))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
