"""`infertool prune` on the bundled models: smaller, verified, resumable, honest about an early end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from infer_tool.engines import open_engine
from infer_tool.files import sha256
from infer_tool.held_memory import held_bytes

pytest.importorskip("torch")

REPOSITORY = Path(__file__).parents[2]


def command(samples: Path, out: Path, *more: object, model: str = "digits_cnn") -> list[str]:
    """Pruning of a bundled network, two short epochs."""
    words = ["prune", samples / f"{model}.onnx", "--data", samples / "digits.npz", "-o", out]
    words += ["--target-macs", "50%", "--epochs", 2, "--runs", 0, "--json", *more]
    return [str(w) for w in words]


def test_half_of_the_work_and_the_report(cli, samples, tmp_path) -> None:
    out = tmp_path / "small.onnx"
    result = cli(*command(samples, out, "--max-drop", "10%"))
    assert result.status == 0, result.err
    report = json.loads(result.out)
    stages = {s["name"]: s for s in report["stages"]}
    before, after = stages["prune"]["macs"]
    assert 0.3 * before < after <= 0.5 * before
    assert stages["train"]["options"]["best"] > 0.8
    assert stages["verify:onnxruntime"]["max_abs_error"] < 1e-4
    assert report["accuracy"]["samples"] == 144
    assert report["artifact"]["bytes"] == out.stat().st_size < 0.7 * report["source"]["bytes"]
    with np.load(samples / "digits.npz") as data:
        logits = open_engine("onnxruntime", out).run({"image": data["image"]})["logits"]
        assert np.mean(logits.argmax(1) == data["labels"]) > 0.9
    again = tmp_path / "again.onnx"
    assert cli(*command(samples, again, "--max-drop", "10%")).status == 0
    assert sha256(again) == sha256(out)


def test_units_of_a_recurrent_layer(cli, samples, tmp_path) -> None:
    out = tmp_path / "small.onnx"
    words = command(samples, out, "--data", samples / "digits_rows.npz", model="digits_gru")
    result = cli(*words, "--importance", "magnitude", "--epochs", 1)
    assert result.status == 0, result.err
    (gru,) = (n for n in onnx.load(out).graph.node if n.op_type == "GRU")
    (units,) = (a.i for a in gru.attribute if a.name == "hidden_size")
    assert units < 64
    assert units % 8 == 0


def test_without_labels(cli, samples, tmp_path) -> None:
    data = tmp_path / "images.npz"
    with np.load(samples / "digits.npz") as arrays:
        np.savez(data, image=arrays["image"])
    out = tmp_path / "small.onnx"
    result = cli(*command(samples, out), "--data", data, "--epochs", 0)
    assert result.status == 0, result.err
    accuracy = json.loads(result.out)["accuracy"]
    assert accuracy["metric"] == "cosine"
    assert accuracy["candidate"] > 0.97  # what goes matters least, and the rest is fitted
    failed = cli(*command(samples, tmp_path / "o.onnx"), "--data", data, "--label-weight", 0.5)
    assert failed.status == 2
    assert "has no labels" in failed.err


def test_a_kill_and_what_comes_after(cli, samples, tmp_path) -> None:
    """Killed after its first epoch it goes on from there, to the same bytes."""
    state, out, whole = tmp_path / "state.npz", tmp_path / "out.onnx", tmp_path / "whole.onnx"
    more = ["--epochs", 4, "--max-drop", "50%"]
    words = command(samples, out, *more, "--checkpoint", state, model="digits_mlp")
    child = subprocess.Popen(
        [sys.executable, "-m", "infer_tool", *words],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
    )
    while not state.exists() and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    resumed = cli(*words, "--time-budget", "10min")  # another limit is no other training
    assert resumed.status == 0, resumed.err
    assert "epoch 1/4" not in resumed.err
    assert cli(*command(samples, whole, *more, model="digits_mlp")).status == 0
    assert sha256(out) == sha256(whole)


def test_the_budget_of_time_keeps_the_best(cli, samples, tmp_path) -> None:
    hook = tmp_path / "slow.py"
    hook.write_text(
        "import signal\n\ncalls = []\n\ndef slow(feeds, generator):\n    calls.append(1)\n"
        "    if len(calls) == 20:\n        signal.setitimer(signal.ITIMER_REAL, 1e-3)\n        signal.pause()\n"
        "    return feeds\n"
    )
    out = tmp_path / "small.onnx"
    words = command(samples, out, "--time-budget", "10min", "--augment", f"{hook}:slow")
    result = cli(*words)
    assert result.status == 5
    assert "best so far (top1" in result.err
    assert f"is written to {out}" in result.err
    assert not json.loads(result.out)["passed"]
    assert open_engine("onnxruntime", out).outputs


@pytest.mark.skipif(held_bytes(os.getpid()) is None, reason="needs Linux")
def test_the_limit_of_memory_keeps_the_best(cli, samples, tmp_path) -> None:
    hook = tmp_path / "growing.py"
    hook.write_text(
        "import time\nimport numpy as np\n\ncalls, kept = [], []\n\n"
        "def grow(feeds, generator):\n    calls.append(1)\n"
        "    while len(calls) >= 20 and len(kept) < 15:\n"
        "        kept.append(np.ones(12_500_000))\n        time.sleep(0.2)\n"
        "    return feeds\n"
    )
    out = tmp_path / "small.onnx"
    limit = f"{(held_bytes(os.getpid()) or 0) // 10**6 + 500}MB"
    result = cli(*command(samples, out, "--max-memory", limit, "--augment", f"{hook}:grow"))
    assert result.status == 5
    assert f"the memory limit of {limit} is reached; the best so far (top1" in result.err
    assert open_engine("onnxruntime", out).outputs


def test_a_loss_that_is_no_number(cli, samples, tmp_path) -> None:
    out = tmp_path / "small.onnx"
    result = cli(*command(samples, out, "--learning-rate", "1e30"))
    assert result.status == 4
    assert "lower --learning-rate" in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--target-params", "50%"], 2, "give one of"),
        (["--target-macs", "0%"], 2, "more than 0%"),
        (["--target-macs", "150%"], 2, "less than 100%"),
        (["--target-macs", "1%"], 2, "is left to prune to"),
        (["--batch-size", "600"], 2, "--batch-size"),
        (["--augment", "none.py:f"], 2, "none.py"),
        (["--checkpoint", "no_such_folder/state.npz"], 2, "no such folder"),
        (["--warmup", "2"], 2, "at most 1"),
        (["--max-drop", "-5%"], 1, "max-drop"),
    ],
)
def test_what_is_refused(cli, samples, tmp_path, more, status, words) -> None:
    result = cli(*command(samples, tmp_path / "small.onnx"), "--epochs", 0, *more)
    assert result.status == status, result.err
    assert words in result.err
    assert list(tmp_path.iterdir()) == []


def test_labels_that_are_no_classes(cli, samples, tmp_path) -> None:
    data = tmp_path / "wrong.npz"
    with np.load(samples / "digits.npz") as arrays:
        np.savez(data, image=arrays["image"], labels=arrays["labels"] + 5)
    result = cli(*command(samples, tmp_path / "o.onnx"), "--data", data)
    assert result.status == 2
    assert "labels range from 5 to 14" in result.err
