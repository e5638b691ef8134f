"""`infertool cluster` on the bundled models: few values, trained, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from infer_tool.engines import open_engine
from infer_tool.files import sha256


def test_four_values_are_trained(cli, samples, tmp_path) -> None:
    pytest.importorskip("torch")
    out, again = tmp_path / "small.onnx", tmp_path / "again.onnx"
    words = ["cluster", samples / "digits_mlp.onnx", "--data", samples / "digits.npz", "--runs", 0]
    words += ["--clusters", 4, "--json", "--batch-size", 32]
    untrained = cli(*words, "-o", tmp_path / "start.onnx", "--epochs", 0)
    result = cli(*words, "-o", out, "--epochs", 3, "--max-drop", "5%")
    assert result.status == 0, result.err
    before, report = json.loads(untrained.out), json.loads(result.out)
    assert report["accuracy"]["candidate"] >= before["accuracy"]["candidate"]
    assert report["artifact"]["bytes"] < 0.2 * report["source"]["bytes"]
    stages = {s["name"]: s for s in report["stages"]}
    assert stages["pack"]["bytes"][1] < 0.1 * stages["pack"]["bytes"][0]
    assert stages["verify:onnxruntime"]["max_abs_error"] < 1e-4
    tables = [numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer]
    assert {t.size for t in tables if t.dtype == np.float32 and t.ndim == 1} >= {4}
    with np.load(samples / "digits.npz") as data:
        logits = open_engine("onnxruntime", out).run({"image": data["image"]})["logits"]
        assert np.mean(logits.argmax(1) == data["labels"]) > 0.9
    assert cli(*words, "-o", again, "--epochs", 3, "--max-drop", "5%").status == 0
    assert sha256(again) == sha256(out)


def test_without_labels_and_without_training(cli, samples, tmp_path) -> None:
    data, out = tmp_path / "images.npz", tmp_path / "small.onnx"
    with np.load(samples / "digits.npz") as arrays:
        np.savez(data, image=arrays["image"])
    result = cli(
        "cluster", samples / "digits_cnn.onnx", "--data", data, "-o", out, "--clusters", 16,
        "--per", "channel", "--epochs", 0, "--runs", 0, "--json",
    )  # fmt: skip
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert "train" not in [s["name"] for s in report["stages"]]
    assert report["accuracy"]["metric"] == "cosine"
    assert report["accuracy"]["candidate"] > 0.99
    (line,) = (s for s in report["stages"] if s["name"] == "cluster")
    assert all("would grow from" in r["reason"] for r in line["refusals"])


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--clusters", 1], 2, "at least 2"),
        (["--clusters", 257], 2, "at most 256"),
        (["--per", "row"], 2, "row"),
        (["--exclude", "nobody"], 2, "no such node"),
        (["--epochs", 0, "--clusters", 256, "--per", "channel"], 2, "would grow from"),
        (["--epochs", 0, "--clusters", 2, "--max-drop", "-5%"], 1, "max-drop"),
    ],
)
def test_what_is_refused(cli, samples, tmp_path, more, status, words) -> None:
    result = cli(
        "cluster", samples / "digits_mlp.onnx", "--data", samples / "digits.npz",
        "-o", tmp_path / "o.onnx", "--runs", 0, *more,
    )  # fmt: skip
    assert result.status == status, result.err
    assert words in result.err
    assert list(tmp_path.iterdir()) == []
