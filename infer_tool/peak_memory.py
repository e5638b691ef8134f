"""Peak memory of one model on one engine, in a process that does nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_tool.held_memory import status_bytes
from infer_tool.ledger import peak_memory
from infer_tool.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATUS = Path("/proc/self/status")
FORGET_PEAK = "5"  # see proc_pid_clear_refs(5)


def peak_of(engine: str, model: str, threads: int, feeds: Mapping[str, Any]) -> int:
    """Bytes that the process grew by while it loaded the model and ran it once.

    Raises:
        InferError: what the engine raises.

    """
    worker = Worker("infer_tool.peak_memory", model, {"engine": engine, "threads": threads})
    grown = worker(feeds)["peak"]
    return int(grown)


def open_source(
    source: str,
    folder: Path,  # noqa: ARG001 - the interface of workers
    options: Mapping[str, Any],
) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], dict[str, Any]]:
    """In the worker: import the engine, remember how large the process is, then load."""
    import numpy as np

    from infer_tool.engines import open_engine, warm_up

    warm_up(options["engine"])
    before = _start_again()
    engine = open_engine(options["engine"], source, threads=options["threads"])

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        engine.run(feeds)
        return {"peak": np.array(_peak() - before)}

    return run, {}


def _start_again() -> int:
    """Forget the peak that the imports reached (Linux only); returns the present size."""
    if not STATUS.exists():
        return peak_memory()
    Path("/proc/self/clear_refs").write_text(FORGET_PEAK, encoding="ascii")
    return status_bytes(os.getpid(), "VmRSS")


def _peak() -> int:
    return status_bytes(os.getpid(), "VmHWM") if STATUS.exists() else peak_memory()
