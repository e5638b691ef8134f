"""`infertool quantize --train` on a bundled model."""

from __future__ import annotations

import json

import pytest

from infer_tool.engines import open_engine

pytest.importorskip("torch")


def test_two_bits_are_better_trained(cli, samples, tmp_path) -> None:
    plain, trained = tmp_path / "plain.onnx", tmp_path / "trained.onnx"
    words = ["quantize", samples / "digits_mlp.onnx", "--data", samples / "digits.npz"]
    words += ["--scheme", "w2a4", "--runs", 0, "--json"]
    first = json.loads(cli(*words, "-o", plain).out)
    result = cli(*words, "-o", trained, "--train", "--epochs", 6, "--batch-size", 32)
    assert result.status == 0, result.err
    second = json.loads(result.out)
    assert second["accuracy"]["candidate"] > max(0.9, first["accuracy"]["candidate"])
    stages = {s["name"]: s for s in second["stages"]}
    assert stages["simulation"]["options"]["steps_apart"] <= 0.1
    assert len(stages["train"]["options"]["losses"]) == 6
    assert abs(trained.stat().st_size - plain.stat().st_size) < 0.05 * plain.stat().st_size
    assert open_engine("onnxruntime", trained).outputs


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--epochs", 3], "--epochs is for training: add --train"),
        (["--train", "--scheme", "fp16"], "--train is for int8, w4a8"),
        (["--train", "--eval", "none.npz"], "none.npz"),
    ],
)
def test_what_is_refused(cli, samples, tmp_path, more, words) -> None:
    result = cli(
        "quantize", samples / "digits_mlp.onnx", "--data", samples / "digits.npz",
        "-o", tmp_path / "o.onnx", *more,
    )  # fmt: skip
    assert result.status == 2, result.err
    assert words in result.err
    assert list(tmp_path.iterdir()) == []
