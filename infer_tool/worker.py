"""Foreign frameworks in a process of their own: they print, leak, crash and end the process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, TYPE_CHECKING, Any

from infer_runtime import errors
from infer_runtime.errors import LimitError, ModelError
from infer_tool import exchange
from infer_tool.reason import LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np

SECONDS = 1800.0  # for one answer; the conversion of a large model takes minutes
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "TQDM_DISABLE": "1"}
PACKAGES = ("infer_runtime", "passes", "quant", "infer_tool")
COLOUR, WORD = re.compile(r"\x1b\[[\d;]*m"), re.compile(r"\w\w")
LAST_WORDS = 4096  # bytes of stderr that are kept


class Worker:
    """A child process that opens a source with a framework, and then runs it on feeds.

    `module` names a module with a function `open_source(source, folder, options)`, which may leave
    files in the folder and returns two things: a function from feeds to outputs, and facts that
    JSON can carry. The process ends, and the folder goes, when nobody holds the worker any more,
    or when it failed.
    """

    def __init__(
        self,
        module: str,
        source: str,
        options: Mapping[str, Any],
        *,
        seconds: float = SECONDS,
        python: str | None = None,
    ) -> None:
        """Start the process and wait until the source is open.

        Args:
            module: see the class.
            source: for `open_source`, and for messages.
            options: what JSON can carry.
            seconds: to wait for one answer.
            python: another interpreter, which has NumPy and the framework.

        Raises:
            InferError: what `open_source` raised.
            ModelError: it raised something else, or the process crashed.
            LimitError: no answer within `seconds`.

        """
        self.folder = Path(mkdtemp(prefix="infertool-"))
        self._source, self._seconds = source, seconds
        self._process = _start(self.folder, python)
        self._words = _LastWords(self._process)
        self._end = weakref.finalize(self, _end, self._process, self.folder)
        question = {"module": module, "source": source, "folder": str(self.folder)}
        self.facts: dict[str, Any] = self._ask(question | {"options": dict(options)})

    def __call__(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Run the source on feeds; returns its outputs by name.

        Raises:
            InferError: as when it was opened; only after a ModelError of the framework's own can
                the worker be asked again.

        """
        if not self._end.alive:
            raise ModelError(f"{self._source}: its framework has ended")
        path = self.folder / "feeds.npz"
        answer = self._ask({"feeds": str(path), "types": exchange.write(path, feeds)})
        return exchange.read(Path(answer["outputs"]), answer["types"])

    def close(self) -> None:
        """End the process now."""
        self._end()

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        try:
            answer = self._answer(json.dumps(question).encode() + b"\n")
        except BaseException:
            self.close()
            raise
        if "error" not in answer:
            return answer
        if "module" in question:
            self.close()
        raise getattr(errors, answer["error"])(answer["text"])

    def _answer(self, line: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._clock() as late:
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
                reply = self._process.stdout.readline()
            except BrokenPipeError:
                reply = b""
        if late.is_set():
            raise LimitError(f"{self._source}: no answer within {self._seconds:g} s")
        if not reply.endswith(b"\n"):
            raise ModelError(f"{self._source}: its framework crashed: {self._status()}")
        answer: dict[str, Any] = json.loads(reply)
        return answer

    @contextmanager
    def _clock(self) -> Iterator[threading.Event]:
        """Kill the process when time is up; the event says whether it was."""
        late, process = threading.Event(), self._process

        def stop() -> None:  # without holding the worker, which may go before the timer's thread
            late.set()
            process.kill()

        timer = threading.Timer(self._seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _status(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "it was killed, probably for want of memory"
        how = f"signal {-code}" if code < 0 else f"it ended with status {code}"
        words = self._words.text()
        return f"{how}: {words}" if words else how


class _LastWords:
    """Reads what a process writes on stderr, and keeps its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        self._end = b""
        self._thread = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while piece := os.read(stream.fileno(), LAST_WORDS):
                self._end = (self._end + piece)[-LAST_WORDS:]

    def text(self) -> str:
        """The last line that says something; the process has ended."""
        self._thread.join(timeout=1)  # a grandchild may still hold the pipe
        lines = COLOUR.sub("", self._end.decode(errors="replace")).splitlines()
        said = (line.strip()[:LENGTH] for line in reversed(lines) if WORD.search(line))
        return next(said, "")


def _start(folder: Path, python: str | None) -> subprocess.Popen[bytes]:
    # -P: a module that lies in the current folder must not take the place of an installed one.
    command = [python or sys.executable, "-P", "-m", "infer_tool.worker_child"]
    paths = os.pathsep.join(p for p in sys.path if p) if python is None else _our_packages(folder)
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": paths},
    )


def _our_packages(folder: Path) -> str:
    """A folder with nothing but this tool: other packages are those of the other interpreter."""
    home = folder / "packages"
    home.mkdir()
    for name in PACKAGES:
        package = import_module(name)
        (home / name).symlink_to(Path(package.__path__[0]).resolve())
    return str(home)


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        try:
            pipe.close()
        except BrokenPipeError:  # a question that it did not live to read
            continue
    shutil.rmtree(folder, ignore_errors=True)
