"""`quantize --scheme auto` on real models: budgets, their contradictions, resuming, determinism."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def auto(cli, samples, tmp_path):
    """Run the search on a sample model; returns the outcome, its document and its output."""

    def run(*options: object, model: str = "digits_cnn", data: str = "digits", out: str = "q.onnx"):
        output = tmp_path / out
        arguments = ["--data", samples / f"{data}.npz", "-o", output, "--scheme", "auto", "--json"]
        if "--runs" not in options:
            arguments += ["--runs", 0]
        outcome = cli("quantize", samples / f"{model}.onnx", *arguments, *options)
        return outcome, json.loads(outcome.out), output

    return run


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _drop(model: Path, result: Path, data: Path, document: dict[str, Any]) -> float:
    """Of the samples that were not used for calibration, by ONNX Runtime itself."""
    arrays = np.load(data)
    calibration = document["config"]["calib_samples"]
    rest = np.sort(np.random.default_rng(0).permutation(len(arrays["labels"]))[calibration:])

    def score(path: Path) -> float:
        session = ort.InferenceSession(path)
        name = session.get_inputs()[0].name
        scores = session.run(None, {name: arrays[name][rest]})[0]
        return float(np.mean(scores.argmax(1) == arrays["labels"][rest]))

    return score(model) - score(result)


def test_max_drop_alone(auto, samples, tmp_path) -> None:
    """The smallest file that is exact enough: far below int8, and as exact as it says."""
    outcome, document, output = auto("--max-drop", "0.5%")
    assert outcome.status == 0, outcome.err
    assert output.stat().st_size < 40_000  # int8 has 87,000
    drop = _drop(samples / "digits_cnn.onnx", output, samples / "digits.npz", document)
    assert document["accuracy"]["drop"] == pytest.approx(drop)
    assert drop <= 0.005
    assert _files(tmp_path) == {"q.onnx"}


def test_max_size_alone(auto) -> None:
    """The size is used up; bytes that were measured are those of the file."""
    outcome, document, output = auto("--max-size", "45kB")
    assert outcome.status == 0, outcome.err
    size = output.stat().st_size
    assert 40_000 < size <= 45_000
    chosen = [c for c in document["candidates"] if c["chosen"]]
    assert [c["bytes"] for c in chosen] == [document["artifact"]["bytes"]] == [size]
    assert chosen[0]["sqnr_db"] == pytest.approx(document["accuracy"]["sqnr_db"])
    assert document["accuracy"]["drop"] <= 0.01


def test_all_limits_together(auto) -> None:
    options = ("--max-drop", "1%", "--max-size", "45kB", "--max-latency", "5s")
    outcome, document, _ = auto(*options, "--engine", "onnxruntime", "--runs", 5)
    assert outcome.status == 0, outcome.err
    assert [g["name"] for g in document["gates"]] == ["max-drop", "max-latency", "max-size"]
    assert all(g["passed"] for g in document["gates"])
    assert all(c["latency_ms"] > 0 for c in document["candidates"])


def test_max_latency_alone(auto) -> None:
    """All kinds of computing are tried before a limit is missed."""
    outcome, document, output = auto("--max-latency", "1us", "--runs", 5, model="digits_mlp")
    assert outcome.status == 1
    assert "gate failed: max-latency" in outcome.err
    assert not output.exists()
    labels = " ".join(c["label"] for c in document["candidates"])
    assert all(kind in labels for kind in ("int8", "dynamic", "float"))


def test_limits_that_contradict(auto, tmp_path) -> None:
    """How close it came, each limit by itself, which layers stand in the way; no file."""
    outcome, document, output = auto("--max-drop", "0.1%", "--max-size", "25kB")
    assert outcome.status == 1
    assert not output.exists()
    assert _files(tmp_path) == set()
    assert outcome.err.count("error: ") == 1
    line = outcome.err.splitlines()[-1]
    assert "without --max-size the smallest is" in line
    assert "in the way: node_conv2d" in line
    assert line.endswith("no file was written")
    assert document["passed"] is False
    assert {g["name"]: g["passed"] for g in document["gates"]}["max-size"] is False
    rows = document["details"]["In the way"]["rows"]
    assert rows[0][0] in line
    exact = [c["bytes"] for c in document["candidates"] if c["drop"] <= 0.001]
    assert min(exact) > 25_000  # it says the truth about what it tried


def test_report_has_the_front(auto, tmp_path) -> None:
    folder = tmp_path / "r"
    outcome, document, _ = auto("--min-sqnr", 25, "--report", folder)
    assert outcome.status == 0, outcome.err
    assert document["accuracy"]["sqnr_db"] >= 25
    assert "Pareto front" in " ".join(document["details"])
    chosen = next(c for c in document["candidates"] if c["chosen"])
    assert len(chosen["formats"]) == 6
    page = (folder / "report.html").read_text()
    assert "chosen" in page
    assert page.count("<svg") >= 2  # the front beside the waterfall


def test_same_command_same_bytes_and_resume(auto, tmp_path) -> None:
    """A second run reads what the first one measured, gives the same bytes, and asks no engine."""
    options = ("--max-drop", "0.5%", "--report", tmp_path / "r")
    first, _, one = auto(*options)
    again, _, two = auto(*options, out="r.onnx")
    fresh, _, three = auto("--max-drop", "0.5%", out="s.onnx")
    assert first.status == again.status == fresh.status == 0
    assert "results of an earlier search are used" in again.err
    assert "results of an earlier search" not in fresh.err
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()
    other, _, _ = auto(*options, "--percentile", 99.9, out="t.onnx")
    assert "results of an earlier search" not in other.err  # another configuration


def test_resume_after_a_kill(samples, tmp_path) -> None:
    """What was measured before the kill is in a file beside the output, and is used."""
    output = tmp_path / "q.onnx"
    command = [sys.executable, "-m", "infer_tool", "quantize", samples / "digits_cnn.onnx"]
    command += ["--data", samples / "digits.npz", "-o", output, "--scheme", "auto", "--runs", "0"]
    command += ["--max-drop", "0.5%"]
    state = tmp_path / "q.onnx.search.json"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not state.exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    json.loads(state.read_text())
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "results of an earlier search are used" in run.stderr
    assert _files(tmp_path) == {"q.onnx"}
    onnx.checker.check_model(onnx.load(output))


def test_a_spoiled_state_is_not_trusted(auto, tmp_path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "search.json").write_text('{"format": 1, "key": "x", "points": 3}')
    outcome, _, _ = auto("--max-drop", "50%", "--report", folder, model="digits_mlp")
    assert outcome.status == 0, outcome.err
    assert "earlier search" not in outcome.err


def test_time_budget(samples, tmp_path) -> None:
    """Status 5 only when nothing within the limits was found; then no file."""
    output = tmp_path / "q.onnx"
    command = [sys.executable, "-m", "infer_tool", "quantize", samples / "digits_cnn.onnx"]
    command += ["--data", samples / "digits.npz", "-o", output, "--scheme", "auto", "--json"]
    command += ["--max-drop", "50%", "--time-budget", "1ms"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 5, run.stderr
    assert json.loads(run.stdout)["error"]["exit_code"] == 5
    assert not output.exists()


def test_time_budget_gives_the_best_so_far(monkeypatch, auto) -> None:
    """The clock runs out after three measured models; the best of them is written."""
    from infer_runtime.errors import LimitError
    from infer_tool.search.judge import EngineJudge

    measure, count = EngineJudge.measure, 0

    def limited(self, assignment):
        nonlocal count
        count += 1
        if count > 3:
            raise LimitError("the time budget of 1s is spent")
        return measure(self, assignment)

    monkeypatch.setattr(EngineJudge, "measure", limited)
    outcome, document, output = auto("--max-drop", "1%")
    assert outcome.status == 0, outcome.err
    assert output.exists()
    assert len(document["candidates"]) == 3
    fitting = [c["bytes"] for c in document["candidates"] if c["drop"] <= 0.01]
    assert document["artifact"]["bytes"] == min(fitting)
    assert any("time budget" in w for w in document["warnings"])


@pytest.mark.parametrize(
    ("model", "data"), [("digits_gru", "digits_rows"), ("digits_keras", "digits_nhwc")]
)
def test_other_kinds_of_models(auto, model, data) -> None:
    outcome, document, output = auto("--max-drop", "1%", model=model, data=data)
    assert outcome.status == 0, outcome.err
    assert document["accuracy"]["drop"] <= 0.01
    assert output.stat().st_size < 0.5 * document["source"]["bytes"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ((), "--scheme auto needs a budget"),
        (("--max-latency", "5ms"), "--max-latency needs timed runs"),
        (("--max-size", "5 apples"), "--max-size '5 apples'"),
        (("--max-drop", "1%", "--metric", "sqnr"), "the metric sqnr has no drop"),
    ],
)
def test_wrong_budgets(auto, tmp_path, options, text) -> None:
    outcome, _, _ = auto(*options)
    assert outcome.status == 2
    assert text in outcome.err
    assert _files(tmp_path) == set()


def test_max_latency_is_a_gate_of_every_scheme(cli, samples, tmp_path) -> None:
    arguments = ["--data", samples / "digits.npz", "-o", tmp_path / "q.onnx", "--runs", 5]
    outcome = cli("quantize", samples / "digits_mlp.onnx", *arguments, "--max-latency", "1us")
    assert outcome.status == 1
    assert "max-latency is" in outcome.err
    assert not (tmp_path / "q.onnx").exists()


def test_a_model_that_the_engine_refuses(monkeypatch, auto) -> None:
    """It is no result, and it is no end of the search."""
    from infer_runtime.errors import ModelError
    from infer_tool.search import judge

    opened, count = judge.evaluate, 0

    def refuse_first(*arguments):
        nonlocal count
        count += 1
        if count == 1:
            raise ModelError("ONNX Runtime refuses it")
        return opened(*arguments)

    monkeypatch.setattr(judge, "evaluate", refuse_first)
    outcome, document, _ = auto("--max-drop", "1%", model="digits_mlp")
    assert outcome.status == 0, outcome.err
    assert document["candidates"][0]["drop"] is None
    assert not document["candidates"][0]["chosen"]
    assert any("refuses" in w for w in document["warnings"])
