"""The memory of a command while it runs (Linux)."""

from __future__ import annotations

import subprocess
import time

from infer_tool.held_memory import family, held_bytes


def peak_of(command: list[str]) -> tuple[int, int, float]:
    """Run it: the peak of bytes that no file backs, the exit status and the seconds.

    Of all its processes: the command itself runs in a child, so that it can tell how it ended.
    """
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        peak = max(peak, sum(held_bytes(process) or 0 for process in family(child.pid)))
        time.sleep(0.02)
    return peak, child.returncode, time.perf_counter() - start
