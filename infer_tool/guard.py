"""A command in a process of its own: a library that ends the process has an exit status too.

Engines are native code; a model that breaks a rule which they do not check takes the process down
with a signal. The process that was started survives, says so in one line, and clears up.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from infer_runtime.errors import InferError, LimitError
from infer_tool.files import remove_leftovers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

PR_SET_PDEATHSIG = 1
INTERRUPTED = 130
STOPS = (signal.SIGINT, signal.SIGTERM)


def open_standard_streams() -> None:
    """A stream that the caller closed leads nowhere; a file of ours must not get its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(os.dup(2), "w", encoding="utf-8")


def fork() -> int | None:
    """In the child, and where there are no forks: None. In the parent: how the child ended.

    Stop requests are passed on; a second one kills. On Linux the child dies with its parent.

    Returns:
        The child's exit status, or minus the signal that ended it.

    """
    if not hasattr(os, "fork") or "INFERTOOL_DEBUG" in os.environ:
        return None
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _die_with(parent)
        return None
    return _wait(child)


def _die_with(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it was asked
            os.kill(os.getpid(), signal.SIGKILL)


def _wait(child: int) -> int:
    requests: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        requests.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number if len(requests) == 1 else signal.SIGKILL)

    for stop in STOPS:
        signal.signal(stop, pass_on)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return INTERRUPTED if requests and ended < 0 else ended


def interrupt_once(_number: int, _frame: FrameType | None) -> None:
    """The first stop request ends the work; others must not end the clearing up.

    A terminal sends Ctrl-C to both processes, and the parent passes its own on.
    """
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    raise KeyboardInterrupt


def crash(arguments: Sequence[str], number: int) -> InferError:
    """What is to be said of a child that a signal ended; its temporary files are removed."""
    words = [part for word in arguments for part in word.split("=", 1)]
    for flag, value in pairwise(words):
        if flag in ("-o", "--output"):
            remove_leftovers(Path(value))
    name = signal.Signals(number).name
    if number == signal.SIGKILL and "--max-memory" in words:
        return LimitError(
            "the process was killed: the memory limit was passed within a single step; no file "
            "was written"
        )
    if number == signal.SIGKILL:
        return LimitError(
            f"the process was killed ({name}), as systems do that run out of memory; "
            "no file was written"
        )
    return InferError(
        f"a library crashed ({name}) on this input; no file was written; --engine reference uses "
        "no native engine, INFERTOOL_DEBUG=1 shows the crash"
    )
