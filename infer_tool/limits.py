"""Limits on what a command may use."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import InferError, LimitError, LimitIsUp, UsageError
from infer_tool.held_memory import family, held_bytes
from infer_tool.units import parse_bytes, parse_seconds, show_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator


AGAIN = 2.0  # seconds until an alarm that was lost rings once more
LOOK = 0.05  # seconds at least between two looks at the memory, ...
SHARE = 20  # and so many times what a look takes
HARD = 1.5  # times the limit: native code does not come back to hear of it


class _Alarm:
    """Raises LimitIsUp in the main thread, as a signal handler, until it is heard.

    A signal interrupts Python code anywhere, and foreign code as soon as that returns, so that the
    clean-up of whatever was under way runs. Python drops what is raised in some callbacks, so the
    alarm rings again until it is heard.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.rung: list[LimitIsUp] = []
        self.over = False

    @property
    def silent(self) -> bool:
        """Is nobody left to answer, or did somebody catch it, to end in another way?"""
        return self.over or (bool(self.rung) and self.rung[-1].heard)

    def ring(self) -> None:
        """Raise, unless what is handled is this alarm."""
        if not self.silent and not any(error in self.rung for error in _handled()):
            self.rung.append(LimitIsUp(self.message))
            raise self.rung[-1]

    @contextmanager
    def answered(self) -> Iterator[None]:
        """LimitError of the alarm, and of what else is made of it."""
        try:
            yield
            self.over = True  # here: one that rings just before it is caught
        except LimitIsUp as error:
            if error not in self.rung:
                raise
            raise LimitError(f"{self.message}; no file was written") from None
        except InferError:
            raise
        except Exception as error:
            if self.rung:  # native code makes other errors of it, such as of an import
                raise LimitError(f"{self.message}; no file was written") from error
            raise
        finally:
            self.over = True


@contextmanager
def time_limit(budget: str | None) -> Iterator[None]:
    """Raise LimitError in the body when the budget is spent; None is no limit.

    Raises:
        UsageError: the budget is no time, or this is no main thread of a POSIX system.

    """
    if budget is None:
        yield
        return
    seconds = parse_seconds(budget, "time-budget")
    _check_main_thread("time-budget")
    alarm = _Alarm(f"the time budget of {budget} is spent")

    def stop(*_: Any) -> None:
        if not alarm.silent:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
            alarm.ring()

    previous = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        with alarm.answered():
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def memory_limit(most: str | None) -> Iterator[None]:
    """Raise LimitError in the body when this process and its children hold more than `most`.

    A thread looks at what they hold. Where the body does not come back to hear of it and they hold
    half as much again, the children are killed, then this process, before the machine suffers.

    Raises:
        UsageError: `most` is no size, is held already, or this is no main thread on Linux.

    """
    if most is None:
        yield
        return
    limit = parse_bytes(most, "max-memory")
    _check_main_thread("max-memory")
    if (held := held_bytes(os.getpid())) is None:
        raise UsageError("--max-memory works on Linux only")
    if held >= limit:
        raise UsageError(f"--max-memory {most}: this process alone holds {show_bytes(held)}")
    alarm, done = _Alarm(f"the memory limit of {most} is reached"), threading.Event()
    previous = signal.signal(signal.SIGUSR1, lambda *_: alarm.ring())
    watcher = threading.Thread(target=_watch, args=(limit, alarm, done), daemon=True)
    try:
        watcher.start()
        with alarm.answered():
            yield
    finally:
        done.set()
        watcher.join()
        signal.signal(signal.SIGUSR1, previous)


def _watch(limit: int, alarm: _Alarm, done: threading.Event) -> None:
    """Ring while too much is held and nobody hears; end what does not stop."""
    wait = 0.0
    while not done.wait(wait) and not alarm.silent:
        start = time.monotonic()
        everyone = family(os.getpid())
        held = sum(held_bytes(process) or 0 for process in everyone)
        wait = max(LOOK, SHARE * (time.monotonic() - start))
        if held > HARD * limit:
            for process in reversed(everyone):
                with suppress(ProcessLookupError):  # it has ended
                    os.kill(process, signal.SIGKILL)
        elif held > limit:
            os.kill(os.getpid(), signal.SIGUSR1)
            wait = AGAIN if alarm.rung else wait


def _check_main_thread(option: str) -> None:
    if not _can_ring():
        raise UsageError(f"--{option} works in the main thread of a POSIX system only")


def _can_ring() -> bool:
    return hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()


def _handled() -> Iterator[BaseException]:
    """The error that the interrupted code is cleaning up after, and those that led to it."""
    error = sys.exc_info()[1]
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def lift_time_limit() -> None:
    """No time limit from here on: what is left must be done whole."""
    if _can_ring():
        signal.setitimer(signal.ITIMER_REAL, 0)
