"""The memory of a command while it runs (Linux)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path


def peak_of(command: list[str]) -> tuple[int, int, float]:
    """Run it: the peak of anonymous bytes, the exit status and the seconds."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        peak = max(peak, anonymous_memory(child.pid))
        time.sleep(0.02)
    return peak, child.returncode, time.perf_counter() - start


def anonymous_memory(process: int) -> int:
    """Bytes of a process and of those that it started which no file backs.

    The command itself runs in a child, so that it can tell how it ended.
    """
    folder = Path(f"/proc/{process}")
    try:
        lines = (folder / "status").read_text().splitlines()
        children = (folder / "task" / str(process) / "children").read_text().split()
    except OSError:
        return 0  # it has just ended
    own = sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return own + sum(anonymous_memory(int(child)) for child in children)
