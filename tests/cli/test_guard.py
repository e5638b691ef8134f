"""Whatever ends the process that works: one line, a documented status, no file left."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = str(Path(__file__).parents[2])
# Ends the process, or waits to be ended, once the output is being made.
DATA = """
import os, signal, time
from pathlib import Path
import numpy as np

HERE = Path(__file__).parent

def samples():
    for n in range(60):
        if any(HERE.glob(".o.onnx.*")):
            {what}
        yield {{"x": np.full(4, n / 60, np.float32)}}
"""
SAY_AND_WAIT = "(HERE / 'pid').write_text(str(os.getpid())); time.sleep(600)"


def _start(tmp_path: Path, tiny: Path, what: str) -> subprocess.Popen[str]:
    (tmp_path / "data.py").write_text(DATA.format(what=what))
    words = ["quantize", str(tiny), "-o", str(tmp_path / "o.onnx"), "--calib-samples", "20"]
    return subprocess.Popen(
        [sys.executable, "-m", "infer_tool", *words, "--data", f"{tmp_path / 'data.py'}:samples"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": REPOSITORY},
    )  # fmt: skip


def _worker(tmp_path: Path) -> int:
    """The process that works, as soon as it has said its number."""
    path = tmp_path / "pid"
    while not (path.exists() and path.read_text()):
        time.sleep(0.02)
    return int(path.read_text())


def _left(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".o.onnx", "o.onnx")))


@pytest.mark.parametrize(
    ("what", "status", "words"),
    [
        ("os.abort()", 7, "a library crashed (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 7, "a library crashed (SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 5, "out of memory"),
    ],
)
def test_a_crash_has_a_status(tmp_path, tiny, what, status, words) -> None:
    process = _start(tmp_path, tiny, what)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert _left(tmp_path) == []


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_reaches_who_works(tmp_path, tiny, stop) -> None:
    process = _start(tmp_path, tiny, SAY_AND_WAIT)
    worker = _worker(tmp_path)
    process.send_signal(stop)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "nothing was written" in err
    assert _left(tmp_path) == []
    assert not Path(f"/proc/{worker}").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends orphans")
def test_who_works_dies_with_who_was_started(tmp_path, tiny) -> None:
    process = _start(tmp_path, tiny, SAY_AND_WAIT)
    worker = Path(f"/proc/{_worker(tmp_path)}/stat")
    process.kill()
    process.communicate(timeout=120)
    for _ in range(500):  # dead; nobody but the first process of the machine buries it
        if not worker.exists() or worker.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    pytest.fail("the process still works")


@pytest.mark.parametrize("extra", [[], ["--json"]])
@pytest.mark.parametrize(
    ("redirection", "status", "words"),
    [
        (">/dev/full", 2, "No space left"),
        ("| true", 2, "Broken pipe"),
        (">&-", 0, None),
        (">&- 2>&- <&-", 0, None),
    ],
)
def test_results_that_cannot_be_delivered(
    tmp_path, tiny, extra, redirection, status, words
) -> None:
    """One line and a status that is no gate's; a closed stream was not wanted."""
    command = shlex.join([sys.executable, "-m", "infer_tool", "inspect", str(tiny), *extra])
    run = subprocess.run(
        ["bash", "-c", f"{command} {redirection}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": REPOSITORY},
    )  # fmt: skip
    assert run.returncode == status, run.stderr
    errors = [line for line in run.stderr.splitlines() if line]
    assert len(errors) == (words is not None), run.stderr
    assert words is None or words in errors[0]
