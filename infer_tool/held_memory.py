"""What processes hold in memory now, as Linux tells it (proc_pid_status(5))."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROCESSES = Path("/proc")
COUNTED = ("RssAnon", "RssShmem")  # pages of files are given back when others need the place


def held_bytes(process: int) -> int | None:
    """Bytes that cannot be given back; None where it has ended, or the system does not tell."""
    try:
        return status_bytes(process, *COUNTED)
    except OSError:
        return None


def status_bytes(process: int, *names: str) -> int:
    """The sum of these fields of a process; OSError where it has ended."""
    lines = (PROCESSES / str(process) / "status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.partition(":")[::2] for line in lines)
    return 1024 * sum(int(fields[name].split()[0]) for name in names if name in fields)


def family(process: int) -> list[int]:
    """A process, its children and theirs, parents first."""
    children: dict[int, list[int]] = {}
    for path in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            after_name = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2]
            children.setdefault(int(after_name.split()[1]), []).append(int(path.name))
    found = [process]
    for parent in found:
        found += children.get(parent, [])
    return found
