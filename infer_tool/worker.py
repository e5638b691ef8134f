"""Foreign frameworks in a process of their own: they print, leak, crash and end the process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from infer_runtime import errors
from infer_runtime.errors import LimitError, ModelError
from infer_tool import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

SECONDS = 1800.0  # for one answer; the conversion of a large model takes minutes
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "TQDM_DISABLE": "1"}


class Worker:
    """A child process that opens a source with a framework, and then runs it on feeds.

    `module` names a module with a function `open_source(source, folder, options)`, which may leave
    files in the folder and returns two things: a function from feeds to outputs, and facts that
    JSON can carry. The process ends, and the folder goes, when nobody holds the worker any more.
    """

    def __init__(
        self, module: str, source: str, options: Mapping[str, Any], *, seconds: float = SECONDS
    ) -> None:
        """Start the process and wait until the source is open.

        Raises:
            InferError: what `open_source` raised.
            ModelError: it raised something else, or the process crashed.
            LimitError: no answer within `seconds`.

        """
        self.folder = Path(mkdtemp(prefix="infertool-"))
        self._source, self._seconds = source, seconds
        # -P: a module that lies in the current folder must not take the place of an installed one.
        command = [sys.executable, "-P", "-m", "infer_tool.worker_child"]
        paths = os.pathsep.join(p for p in sys.path if p)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": paths},
        )
        weakref.finalize(self, _end, self._process, self.folder)
        self.facts: dict[str, Any] = self._ask(
            {"module": module, "source": source, "folder": str(self.folder), "options": options}
        )

    def __call__(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Run the source on feeds; returns its outputs by name."""
        path = self.folder / "feeds.npz"
        answer = self._ask({"feeds": str(path), "types": exchange.write(path, feeds)})
        return exchange.read(Path(answer["outputs"]), answer["types"])

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._clock() as late:
            try:
                self._process.stdin.write(json.dumps(question).encode() + b"\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            except BrokenPipeError:
                line = b""
        if late.is_set():
            raise LimitError(f"{self._source}: no answer within {self._seconds:g} s")
        if not line:
            raise ModelError(f"{self._source}: its framework crashed: {self._status()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["text"])
        return answer

    @contextmanager
    def _clock(self) -> Iterator[threading.Event]:
        """Kill the process when time is up; the event says whether it was."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(self._seconds, stop)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _status(self) -> str:
        code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"it ended with status {code}"


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    shutil.rmtree(folder, ignore_errors=True)
