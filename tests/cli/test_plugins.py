"""The example of the documentation, installed as a user would, does what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infer_tool.emitters.onnx import save_onnx

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "docs" / "examples" / "plugin"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the command line where the example is installed; returns the document of --json."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
            "--no-index", "--target", str(folder / "site"), str(folder / "source"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    paths = os.pathsep.join([str(folder / "site"), str(REPOSITORY)])

    def call(*arguments: object, status: int = 0):
        command = [sys.executable, "-m", "infer_tool", *map(str, arguments), "--json"]
        environment = os.environ | {"PYTHONPATH": paths}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)

    return call


def test_doctor_lists_them(run) -> None:
    details = run("doctor", "--formats")["details"]
    assert {tuple(row) for row in details["Plugins"]["rows"]} == {
        ("engines", "evaluator"), ("importers", "linear"),
        ("metrics", "margin"), ("passes", "double-negation"),
    }  # fmt: skip
    assert any(row[0].startswith("evaluator") for row in details["Engines"]["rows"])
    assert any(row[0] == "Linear model as text" for row in details["Formats"]["rows"])


def test_importer(run, tmp_path) -> None:
    weight = np.arange(6).reshape(3, 2)
    (tmp_path / "m.txt").write_text("linear\n0 1\n2 3\n4 5\n")
    document = run("convert", tmp_path / "m.txt", "-o", tmp_path / "m.onnx")
    assert document["source"]["format"] == "linear"
    stored = onnx.load(tmp_path / "m.onnx").graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored[0]), weight)
    (tmp_path / "bad.txt").write_text("linear\n0 1\n2\n")
    failed = run("convert", tmp_path / "bad.txt", "-o", tmp_path / "b.onnx", status=3)
    assert "bad.txt" in failed["error"]["message"]


def test_engine(run, samples) -> None:
    model = samples / "digits_mlp.onnx"
    document = run("verify", model, model, "--engine", "evaluator")
    assert [row["engine"] for row in document["outputs"]] == ["evaluator"]
    assert run("bench", model, "--engine", "evaluator", "--runs", "3")["latency"][0]["runs"] == 3


def test_pass(run, tmp_path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    t (float[N,3] x) => (float[N,3] y) { a = Neg(x) b = Neg(a) y = Relu(b) }"""
    save_onnx(ir.from_onnx_text(text), tmp_path / "m.onnx")
    options = ("--passes", "double-negation,remove-unused,eliminate-identity")
    document = run("optimize", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", *options)
    assert [n.op_type for n in onnx.load(tmp_path / "o.onnx").graph.node] == ["Relu"]
    fired = {s["name"]: s["options"]["changes"] for s in document["stages"] if s["fired"]}
    assert fired["double-negation"] == 1


def test_metric(run, samples, tmp_path) -> None:
    data = ("--data", samples / "digits.npz", "--samples", "50", "--runs", "0")
    options = (*data, "--metric", "margin", "--scheme", "fp16", "-o", tmp_path / "q.onnx")
    accuracy = run("quantize", samples / "digits_mlp.onnx", *options)["accuracy"]
    assert accuracy["metric"] == "margin"
    assert accuracy["reference"] > 0
    failed = run("quantize", samples / "digits_mlp.onnx", *data, "--calib-samples", "9",
                 "--metric", "no", "-o", tmp_path / "r.onnx", status=2)  # fmt: skip
    assert "margin" in failed["error"]["message"]
