"""`infertool binarize` on a bundled model, and the other commands on what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch")


def digits(cli, samples: Path, out: Path, *more: object):
    return cli(
        "binarize", samples / "digits_cnn.onnx", "--data", samples / "digits.npz", "-o", out,
        "--epochs", 2, "--batch-size", 16, "--runs", 0, "--json", *more,
    )  # fmt: skip


def test_bits_by_bits(cli, samples, tmp_path) -> None:
    out, again, packed = tmp_path / "a.onnx", tmp_path / "b.onnx", tmp_path / "c.onnx"
    result = digits(cli, samples, out, "--activations", "binary")
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["accuracy"]["candidate"] > 0.9
    stages = {s["name"]: s for s in report["stages"]}
    assert stages["pack"]["options"]["layers"] == 2
    assert stages["pack"]["options"]["smaller"] > 24
    assert stages["pack"]["options"]["noise"] < 1e-5
    reasons = {r["node"]: r["reason"] for r in stages["binarize"]["refusals"]}
    assert "sums 9 products" in reasons["node_conv2d_1"]
    assert "first or the last layer" in reasons["node_linear"]
    calls = [n.op_type for n in onnx.load(out).graph.node if n.domain == "infertool"]
    assert calls == ["XnorConv", "XnorConv"]
    assert digits(cli, samples, again, "--activations", "binary").status == 0
    assert again.read_bytes() == out.read_bytes()
    optimised = cli("optimize", out, "-o", packed)
    assert optimised.status == 0, optimised.err
    assert cli("verify", out, packed).status == 0
    inspected = json.loads(cli("inspect", out, "--json").out)
    assert inspected["source"]["macs"] == report["source"]["macs"]


def test_weights_of_three_values(cli, samples, tmp_path) -> None:
    out = tmp_path / "o.onnx"
    result = digits(cli, samples, out, "--weights", "ternary", "--max-drop", "10%")
    assert result.status == 0, result.err
    calls = [n.op_type for n in onnx.load(out).graph.node if n.domain == "infertool"]
    assert calls == ["TernaryConv", "TernaryConv"]


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (["--exclude", "nobody"], 2, "--exclude 'nobody': the model has no such node"),
        (["--min-products", 10000], 2, "no layer of this model can become binary"),
        (["--weights", "quaternary"], 2, "quaternary"),
        (["--epochs", 0, "--activations", "binary", "--max-drop", "1%"], 1, "max-drop"),
    ],
)
def test_what_is_refused(cli, samples, tmp_path, more, status, words) -> None:
    result = cli(
        "binarize", samples / "digits_cnn.onnx", "--data", samples / "digits.npz",
        "-o", tmp_path / "o.onnx", "--runs", 0, *more,
    )  # fmt: skip
    assert result.status == status, result.err
    assert words in result.err
    assert list(tmp_path.iterdir()) == []
