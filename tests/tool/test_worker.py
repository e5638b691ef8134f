"""A framework in a child process may do what it likes; the parent gets one line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from infer_runtime.errors import LimitError, ModelError, UnsupportedOpError, UsageError
from infer_tool.worker import Worker

HERE = Path(__file__).parent
CASES = "worker_cases"
FEEDS = {"x": np.arange(3, dtype=np.float32)}


def _is_alive(pid: int) -> bool:
    """A process that nobody waited for still has a number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_feeds_and_outputs_of_every_type() -> None:
    worker = Worker(CASES, "plain", {"a": [1, "b"]})
    assert worker.facts == {"options": {"a": [1, "b"]}, "half": "1.5"}
    feeds = {
        "x": np.ones((2, 3), np.float32),
        "file": np.array(7, np.int64),  # a parameter of numpy.savez
        "empty": np.zeros((0, 4), np.float16),
        "half": np.array([1.5, 2.5], ml_dtypes.bfloat16),
        "text": np.array([["a", "ß"]], object),
    }
    for _ in range(2):
        outputs = worker(feeds)
        assert list(outputs) == [*[n for n in feeds if n != "text"], "text"]
        for name in ("x", "file", "empty", "half"):
            assert outputs[name].dtype == feeds[name].dtype
            assert outputs[name].shape == feeds[name].shape
            np.testing.assert_array_equal(outputs[name], feeds[name] + 1)
        assert outputs["text"].tolist() == [["a!", "ß!"]]


@pytest.mark.parametrize("when", ["open", "run"])
@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("crash", ModelError, "its framework crashed: signal 11: what()  a vector is too long"),
        ("end", ModelError, "its framework crashed: it ended with status 3"),
        ("kill", ModelError, "its framework crashed: it was killed, probably for want of memory"),
        ("exit", ModelError, "its framework crashed: it ended with status 1: enough"),
        ("usage", UsageError, "the option is wrong"),
        ("op", UnsupportedOpError, "no operator Foo"),
        ("raise", ModelError, "KeyError: 'inner'"),
    ],
)
def test_what_goes_wrong_is_one_line(when, how, kind, text, capfd) -> None:
    source = f"at {when} {how}"
    with pytest.raises(kind) as caught:
        Worker(CASES, source, {})(FEEDS)
    expected = {
        "raise": f"{source}: cannot be {'opened' if when == 'open' else 'run'} by its framework: ",
        "usage": "",
        "op": "",
    }.get(how, f"{source}: ")
    assert str(caught.value) == expected + text
    assert type(caught.value) is kind
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("when", ["open", "run"])
def test_what_it_prints_and_reads_is_nobodys(when, capfd) -> None:
    worker = Worker(CASES, f"at {when} print", {})
    np.testing.assert_array_equal(worker(FEEDS)["x"], FEEDS["x"] + 1)
    assert capfd.readouterr() == ("", "")


def test_an_error_while_it_runs_does_not_end_it() -> None:
    worker = Worker(CASES, "at run raise", {})
    for _ in range(2):
        with pytest.raises(ModelError, match="'inner'"):
            worker(FEEDS)
    assert worker.folder.exists()


def test_after_a_crash_it_stays_ended() -> None:
    worker = Worker(CASES, "at run end", {})
    with pytest.raises(ModelError, match="crashed"):
        worker(FEEDS)
    assert not worker.folder.exists()
    with pytest.raises(ModelError, match=r"^at run end: its framework has ended$"):
        worker(FEEDS)


@pytest.mark.parametrize("when", ["open", "run"])
def test_it_is_killed_when_time_is_up(tmp_path, when) -> None:
    marker = tmp_path / "pid"
    with pytest.raises(LimitError, match=rf"^at {when} hang: no answer within 2 s$"):
        Worker(CASES, f"at {when} hang", {"marker": str(marker)}, seconds=2)(FEEDS)
    assert not _is_alive(int(marker.read_text()))


def test_the_folder_goes_with_the_worker() -> None:
    worker = Worker(CASES, "plain", {})
    folder = worker.folder
    assert (folder / "left").read_text() == "a file"
    del worker
    assert not folder.exists()


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_nothing_stays_when_the_parent_is_ended(tmp_path, end) -> None:
    """Without a chance to clean up; the child notices that nobody asks any more."""
    script = f"""
import os, sys, time
sys.path[:0] = {[str(HERE), str(HERE.parents[1])]!r}
from infer_tool.worker import Worker
worker = Worker("{CASES}", "plain", {{}})
print(worker.folder, worker._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        folder, pid = parent.stdout.readline().decode().split()
        getattr(parent, end)()
    for _ in range(200):
        if not _is_alive(int(pid)) and not Path(folder).exists():
            break
        time.sleep(0.05)
    assert not _is_alive(int(pid))
    assert not Path(folder).exists()


def test_a_module_in_the_current_folder_takes_nobodys_place(tmp_path, monkeypatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    assert Worker(CASES, "plain", {})(FEEDS)["x"][0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["json.py"]
