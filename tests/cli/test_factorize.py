"""`infertool factorize` on the bundled models: fewer parameters or MACs, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from infer_tool.engines import open_engine
from infer_tool.files import sha256


def words(samples, out, *more, model="digits_cnn"):
    given = ["factorize", samples / f"{model}.onnx", "--data", samples / "digits.npz", "-o", out]
    return [*given, "--runs", 0, "--batch-size", 32, "--json", *more]


def test_fewer_parameters_and_as_many_hits(cli, samples, tmp_path) -> None:
    pytest.importorskip("torch")
    out, again = tmp_path / "small.onnx", tmp_path / "again.onnx"
    more = ["--target-params", "60%", "--epochs", 1, "--max-drop", "5%"]
    result = cli(*words(samples, out, *more))
    assert result.status == 0, result.err
    report = json.loads(result.out)
    before, after = report["source"]["parameters"], report["artifact"]["parameters"]
    assert 0.4 * before < after <= 0.6 * before
    assert report["artifact"]["bytes"] < 0.8 * report["source"]["bytes"]
    (line,) = (s for s in report["stages"] if s["name"] == "factorize")
    names = {n.name for n in onnx.load(out).graph.node}
    assert all({n, f"{n}_low"} <= names for n in line["options"]["layers"])
    with np.load(samples / "digits.npz") as data:
        logits = open_engine("onnxruntime", out).run({"image": data["image"]})["logits"]
        assert np.mean(logits.argmax(1) == data["labels"]) > 0.9
    assert cli(*words(samples, again, *more)).status == 0
    assert sha256(again) == sha256(out)


@pytest.mark.parametrize("more", [["--target-macs", "70%"], ["--energy", 0.9]])
def test_without_training_the_outputs_stay_near(cli, samples, tmp_path, more) -> None:
    """The macs are really fewer; the variance that was to stay is there."""
    data = tmp_path / "images.npz"
    with np.load(samples / "digits.npz") as arrays:
        np.savez(data, image=arrays["image"])
    out = tmp_path / "small.onnx"
    result = cli(*words(samples, out, "--data", data, "--epochs", 0, *more))
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["artifact"]["macs"] < report["source"]["macs"]
    if "--target-macs" in more:
        assert report["artifact"]["macs"] <= 0.7 * report["source"]["macs"]
    assert report["accuracy"]["metric"] == "cosine"
    assert report["accuracy"]["candidate"] > 0.9
    assert "train" not in [s["name"] for s in report["stages"]]


@pytest.mark.parametrize(
    ("more", "status", "text"),
    [
        ([], 2, "give one of --target-params"),
        (["--target-params", "60%", "--energy", 0.9], 2, "give one of --target-params"),
        (["--energy", 1], 2, "give one of"),
        (["--energy", 1.5], 2, "at most 1"),
        (["--target-macs", "0%"], 2, "more than 0%"),
        (["--target-macs", "120%"], 2, "less than 100%"),
        (["--target-params", "1%"], 2, "the smallest ranks leave"),
        (["--target-params", "60%", "--exclude", "nobody"], 2, "no such node"),
        (["--target-params", "60%", "--multiple", 4096], 2, "the smallest ranks leave"),
        (["--target-params", "60%", "--epochs", 0, "--max-drop", "-5%"], 1, "max-drop"),
    ],
)
def test_what_is_refused(cli, samples, tmp_path, more, status, text) -> None:
    result = cli(*[w for w in words(samples, tmp_path / "o.onnx", *more) if w != "--json"])
    assert result.status == status, result.err
    assert text in result.err
    assert list(tmp_path.iterdir()) == []
