"""Limits on what a command may use."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import InferError, TimeIsUp, TimeLimitError, UsageError
from infer_tool.units import parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator


AGAIN = 2.0  # seconds until an alarm that was lost rings once more


@contextmanager
def time_limit(budget: str | None) -> Iterator[None]:
    """Raise TimeLimitError in the body when the budget is spent; None is no limit.

    An alarm of the operating system: it interrupts Python code anywhere, and foreign code as soon
    as that returns, so that the clean-up of whatever was under way runs. Python drops what is
    raised in some callbacks, so the alarm rings until it is heard.
    """
    if budget is None:
        yield
        return
    seconds = parse_seconds(budget, "time-budget")
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        raise UsageError("--time-budget works in the main thread of a POSIX system only")

    message = f"the time budget of {budget} is spent; no file was written"
    rung: list[TimeIsUp] = []

    def stop(*_: Any) -> None:
        if rung and rung[-1].heard:
            return
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        if not any(error in rung for error in _handled()):
            rung.append(TimeIsUp(message))
            raise rung[-1]

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    except TimeIsUp:
        raise TimeLimitError(message) from None
    except InferError:
        raise
    except Exception as error:
        if rung:  # native code makes other errors of it, such as of an import
            raise TimeLimitError(message) from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _handled() -> Iterator[BaseException]:
    """The error that the interrupted code is cleaning up after, and those that led to it."""
    error = sys.exc_info()[1]
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def lift_time_limit() -> None:
    """No time limit from here on: what is left must be done whole."""
    if hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0)
