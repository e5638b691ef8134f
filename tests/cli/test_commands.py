"""The commands on small real models, judged by ONNX Runtime."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_tool import quantize
from infer_tool.cli import main
from infer_tool.config import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path

LIGHT = {
    "torch",
    "tensorflow",
    "onnxruntime",
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "rich.table",
}


def _top1(model: Path, data: Path) -> float:
    arrays = np.load(data)
    session = ort.InferenceSession(model)
    name = session.get_inputs()[0].name
    scores = session.run(None, {name: arrays[name]})[0]
    return float(np.mean(scores.argmax(1) == arrays["labels"]))


def test_quantize_digits(cli, samples, tmp_path) -> None:
    source, data = samples / "digits_cnn.onnx", samples / "digits.npz"
    output = tmp_path / "q.onnx"
    outcome = cli(
        "quantize", source, "--data", data, "-o", output, "--report", tmp_path / "r", "--json"
    )
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert document == json.loads((tmp_path / "r" / "report.json").read_text())
    assert output.stat().st_size <= 0.35 * source.stat().st_size
    assert document["coverage"]["macs_fraction"] >= 0.95
    assert document["accuracy"]["metric"] == "top1"
    assert document["accuracy"]["drop"] <= 0.005
    assert _top1(source, data) - _top1(output, data) <= 0.005
    assert "digits_cnn" in (tmp_path / "r" / "report.md").read_text()


def test_report_follows_the_schema(cli, samples, tmp_path) -> None:
    arguments = [
        samples / "digits_cnn.onnx",
        "--data",
        samples / "digits.npz",
        "-o",
        tmp_path / "q.onnx",
    ]
    document = json.loads(cli("quantize", *arguments, "--json", "--max-drop", "50%").out)
    assert document["schema"] == 1
    assert set(document["tool"]) == {"name", "version"}
    keys = {"path", "format", "sha256", "bytes", "nodes", "parameters", "macs", "opset"}
    assert set(document["source"]) == set(document["artifact"]) == keys
    stage = {
        "name",
        "options",
        "seconds",
        "nodes",
        "bytes",
        "parameters",
        "max_abs_error",
        "sqnr_db",
        "refusals",
    }
    assert all(stage <= set(s) for s in document["stages"])
    assert {
        "nodes",
        "quantized_nodes",
        "weights_bytes_fraction",
        "macs_fraction",
        "fallbacks",
    } <= set(document["coverage"])
    assert {"metric", "reference", "candidate", "drop", "samples", "agreement", "sqnr_db"} <= set(
        document["accuracy"]
    )
    row = {"model", "engine", "threads", "batch", "p50_ms", "p90_ms", "p99_ms", "runs"}
    assert all(row <= set(r) for r in document["latency"])
    assert document["gates"] == [
        {"name": "max-drop", "limit": 0.5, "value": document["accuracy"]["drop"], "passed": True}
    ]
    assert document["config"]["scheme"] == "int8"
    assert document["artifact"]["sha256"]


@pytest.mark.parametrize("extra", [[], ["--scheme", "fp16"]])
def test_same_inputs_same_bytes(cli, samples, tmp_path, extra) -> None:
    results = []
    for name in ("a.onnx", "b.onnx"):
        output = tmp_path / name
        arguments = ["--data", samples / "digits.npz", "-o", output, "--runs", "0", *extra]
        assert cli("quantize", samples / "digits_cnn.onnx", *arguments).status == 0
        results.append(output.read_bytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_calibration(samples, tmp_path, method) -> None:
    report = quantize(
        samples / "digits_cnn.onnx",
        tmp_path / "q.onnx",
        data=str(samples / "digits.npz"),
        calibration=method,
        runs=0,
    )
    assert report.accuracy.drop <= 0.01


def error_rate(outputs, labels) -> float:
    """A metric as a user would write it, larger is better."""
    return -float(np.mean(outputs["logits"].argmax(1) != labels))


def test_metric_of_the_user(samples, tmp_path) -> None:
    report = quantize(
        samples / "digits_cnn.onnx",
        tmp_path / "q.onnx",
        data=str(samples / "digits.npz"),
        metric=f"{__file__}:error_rate",
        samples=50,
        runs=0,
    )
    assert report.accuracy.samples == 50
    assert -1 <= report.accuracy.reference <= 0
    assert report.accuracy.drop == report.accuracy.reference - report.accuracy.candidate


def test_convert_pt2(cli, samples, tmp_path) -> None:
    output = tmp_path / "m.onnx"
    outcome = cli("convert", samples / "digits_cnn.pt2", "-o", output, "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    compare = next(s for s in document["stages"] if s["name"] == "compare")
    assert 0 <= compare["max_abs_error"] < 1e-4
    model = onnx.load(output)
    assert "BatchNormalization" not in {n.op_type for n in model.graph.node}
    assert b"/" + b"site-packages" not in output.read_bytes()
    assert _top1(output, samples / "digits.npz") == _top1(
        samples / "digits_cnn.onnx", samples / "digits.npz"
    )


def test_convert_keras_and_saved_model(cli, samples, tmp_path) -> None:
    import keras

    source = samples / "digits_keras.keras"
    keras.saving.load_model(source).export(tmp_path / "saved", verbose=False)
    for path in (source, tmp_path / "saved"):
        outcome = cli("convert", path, "-o", tmp_path / "k.onnx", "--force", "--json")
        assert outcome.status == 0, outcome.err
        document = json.loads(outcome.out)
        compare = next(s for s in document["stages"] if s["name"] == "compare")
        assert compare["max_abs_error"] < 1e-4
        assert document["source"]["bytes"] > 30_000
        assert "Conv" in {n.op_type for n in onnx.load(tmp_path / "k.onnx").graph.node}


def test_optimize_folds_batchnorm(cli, samples, tmp_path) -> None:
    source, output = samples / "digits_cnn.onnx", tmp_path / "m.onnx"
    before = {n.op_type for n in onnx.load(source).graph.node}
    assert "BatchNormalization" in before
    outcome = cli("optimize", source, "-o", output)
    assert outcome.status == 0, outcome.err
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(output).graph.node}
    assert cli("verify", source, output, "--data", samples / "digits.npz").status == 0


def test_verify_finds_a_changed_weight(cli, tiny, tmp_path) -> None:
    model = onnx.load(tiny)
    weight = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(weight).copy()
    array.reshape(-1)[0] += 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    changed = tmp_path / "changed.onnx"
    onnx.save(model, changed)
    outcome = cli("verify", tiny, changed)
    assert outcome.status == 4
    assert "MISMATCH" in outcome.out
    assert "'y'" in outcome.err
    assert cli("verify", tiny, tiny).status == 0
    assert cli("verify", tiny, changed, "--tolerance", "0.5").status == 0


def test_verify_across_formats_and_synthetic_stamp(cli, samples, tmp_path) -> None:
    """A .pt2 has no output names: compared by position, and said so."""
    outcome = cli("verify", samples / "digits_cnn.pt2", samples / "digits_cnn.onnx", "--json")
    assert outcome.status == 0, outcome.err
    assert "by position" in json.loads(outcome.out)["warnings"][0]
    arguments = [
        "--calib",
        "synthetic",
        "--eval",
        samples / "digits.npz",
        "-o",
        tmp_path / "s.onnx",
    ]
    outcome = cli("quantize", samples / "digits_cnn.onnx", *arguments, "--json")
    assert "synthetic" in json.loads(outcome.out)["warnings"][0]
    assert cli("optimize", tmp_path / "s.onnx", "-o", tmp_path / "t.onnx").status == 0
    for name in ("s.onnx", "t.onnx"):
        stamps = {p.key: p.value for p in onnx.load(tmp_path / name).metadata_props}
        assert stamps == {"infertool.calibration": "synthetic"}


def test_verify_wants_the_same_inputs(cli, tiny, samples) -> None:
    outcome = cli("verify", tiny, samples / "digits_cnn.onnx")
    assert outcome.status == 2
    assert "image" in outcome.err


def test_bench(cli, tiny) -> None:
    outcome = cli("bench", tiny, tiny, "--runs", "5", "--json")
    rows = json.loads(outcome.out)["latency"]
    assert outcome.status == 0
    assert {r["engine"] for r in rows} == {"reference", "onnxruntime"}
    assert all(0 < r["p50_ms"] <= r["p90_ms"] <= r["p99_ms"] and r["runs"] == 5 for r in rows)
    assert cli("bench", tiny, "--runs", "5", "--max-latency", "1us").status == 1


def test_inspect(cli, tiny) -> None:
    outcome = cli("inspect", tiny, "--layers", "--json")
    document = json.loads(outcome.out)
    assert document["source"]["parameters"] == 4 * 16 + 16 + 16 * 3 + 3
    assert document["source"]["macs"] == 4 * 16 + 16 * 3
    assert [row[1] for row in document["details"]["Layers"]["rows"]] == ["Gemm", "Relu", "Gemm"]


def test_inspect_shows_the_opset_of_the_file(cli, samples) -> None:
    outcome = cli("inspect", samples / "digits_keras.onnx", "--json")
    written = next(
        o.version for o in onnx.load(samples / "digits_keras.onnx").opset_import if not o.domain
    )
    assert json.loads(outcome.out)["source"]["opset"] == written == 18


def test_doctor(cli) -> None:
    outcome = cli("doctor")
    assert outcome.status == 0
    for words in ("onnxruntime", "reference", ".pt2"):
        assert words in outcome.out


def test_doctor_lists_operators(cli) -> None:
    outcome = cli("doctor", "--ops", "--json")
    rows = {row[0]: row[1:] for row in json.loads(outcome.out)["details"]["All operators"]["rows"]}
    assert rows["Conv"] == ["own kernel", "yes"]
    assert rows["QLinearConv"] == ["own kernel", "no"]
    assert rows["GridSample"] == ["the onnx package", "no"]
    assert rows["ai.onnx.preview.training::Gradient"] == ["nobody: refused", "no"]


def test_doctor_lists_what_becomes_c(cli) -> None:
    rows = json.loads(cli("doctor", "--native", "--json").out)["details"]["Operators as C"]["rows"]
    assert len(rows) >= 120
    assert dict(rows)["GRU"] == "float32 int32"


def test_doctor_lists_formats(cli) -> None:
    rows = json.loads(cli("doctor", "--formats", "--json").out)["details"]["Formats"]["rows"]
    assert [
        "TensorFlow SavedModel, 1 and 2",
        "folder with saved_model.pb",
        "tensorflow, tf2onnx",
    ] in rows
    assert all(how and needs for _, how, needs in rows)


def test_verify_as_another_processor(cli, tmp_path: Path) -> None:
    """Full-range weights and bright inputs: exact here, clipped at 16 bits without VNNI."""
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[1,4] x) => (float[1,1] y) <float s = {0.01}, uint8 z = {0}, int8[4,1] w = {127, 127, 127, 127},
      float t = {0.1}, int8 zw = {0}> {
      q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)  b = DequantizeLinear(w, t, zw)  y = MatMul(a, b) }"""
    model = tmp_path / "m.onnx"
    ir.save(ir.from_onnx_text(text), model)
    np.savez(tmp_path / "d.npz", x=np.full((2, 4), 2.5, np.float32))
    data = ("--data", str(tmp_path / "d.npz"), "--engine", "reference")
    assert cli("verify", str(model), str(model), *data).status == 0
    outcome = cli("verify", str(model), str(model), *data, "--target-cpu", "avx2")
    assert outcome.status == 4
    assert "reference as avx2 differs" in outcome.err
    assert cli("verify", str(model), str(model), "--target-cpu", "mips").status == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom infer_tool.cli import main\n"
        "status = main(['--help'])\n"
        f"heavy = {LIGHT!r} - {{'rich.table'}}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\nsys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert result.stderr.strip() == "[]"
    for name in COMMANDS:
        assert name in result.stdout


@pytest.mark.parametrize("command", list(COMMANDS))
def test_each_help(cli, command) -> None:
    outcome = cli(command, "--help")
    assert outcome.status == 0
    assert "--report" in outcome.out


def test_version_and_no_arguments(cli) -> None:
    assert cli("--version").out.startswith("infertool ")
    screen = cli()
    assert screen.status == 0
    shown = re.findall(r"^ +infertool (\w+) \S", screen.out, re.MULTILINE)
    assert len(shown) == 5
    assert set(shown) <= set(COMMANDS)
    assert main(["--version"]) == 0


def test_api_names_the_close_option(tiny, tmp_path) -> None:
    with pytest.raises(Exception, match="did you mean 'scheme'"):
        quantize(tiny, tmp_path / "q.onnx", shceme="int8")


def test_levels_and_explanations(cli, samples, tmp_path) -> None:
    source, output = samples / "digits_cnn.onnx", tmp_path / "m.onnx"
    nodes = []
    for level in range(3):
        outcome = cli("optimize", source, "-o", output, "--force", "--level", level, "--json")
        assert outcome.status == 0, outcome.err
        nodes.append(json.loads(outcome.out)["artifact"]["nodes"])
    assert nodes[0] == json.loads(outcome.out)["source"]["nodes"] > nodes[2]
    folds = next(s for s in json.loads(outcome.out)["stages"] if s["name"] == "fold-batchnorm")
    assert len(folds["fired"]) == folds["options"]["changes"] > 0
    shown = cli("optimize", source, "-o", output, "--force", "--explain").out
    assert "Changed" in shown
    assert "BatchNormalization)" in shown
    outcome = cli("optimize", source, "-o", output, "--force", "--level", 4)
    assert outcome.status == 2
    assert "--level 4: expected at most 3" in outcome.err


def test_inspect_memory(cli, tiny, samples) -> None:
    outcome = cli("inspect", tiny, "--memory")
    assert outcome.status == 2
    assert "'x' has no fixed size, it is Nx4; give one with --shape x:1x..." in outcome.err
    arguments = ["--memory", "--shape", "x:3x4", "--json"]
    document = json.loads(cli("inspect", tiny, *arguments).out)
    rows = dict(document["details"]["Memory"]["rows"])
    h = r = 3 * 16 * 4
    assert rows["bytes of all buffers"] == 3 * 4 * 4 + h + r + 3 * 3 * 4
    assert rows["largest live set (no arena is smaller)"] == h + r
    assert rows["arena, best plan found"] == h + r
    assert rows["proven to be the smallest"] == "yes"
    assert rows["peak at node"] == "layer1"
    live = document["details"]["Live at the peak"]["rows"]
    assert {row[0] for row in live} == {"h", "r"}
    shown = cli("inspect", samples / "digits_cnn.onnx", "--memory", "--shape", "image:4x1x8x8")
    assert shown.status == 0, shown.err
    assert "Live at the peak" in shown.out


def test_optimize_is_proven_on_the_users_data(cli, samples, tmp_path) -> None:
    source, output = samples / "digits_cnn.onnx", tmp_path / "m.onnx"
    data = ["--data", samples / "digits.npz", "--samples", 6, "--json"]
    outcome = cli("optimize", source, "-o", output, *data)
    assert outcome.status == 0, outcome.err
    compare = next(s for s in json.loads(outcome.out)["stages"] if s["name"] == "compare")
    assert compare["options"]["samples"] == 2, "batches of four and of two"
    assert cli("verify", source, output, "--data", samples / "digits.npz").status == 0
    outcome = cli("optimize", source, "-o", output, "--force", "--data", tmp_path / "none.npz")
    assert outcome.status == 2
    assert "none.npz" in outcome.err


def test_completion_of_commands_options_and_engines() -> None:
    for words, wanted in (
        ("infertool ben", "bench"),
        ("infertool bench --best", "--best-batch"),
        ("infertool bench m.onnx --engine open", "openvino"),
    ):
        environment = {
            **os.environ,
            "_INFERTOOL_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        result = subprocess.run(
            [sys.executable, "-m", "infer_tool"],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert result.stdout.split() == [wanted], words


def test_the_effective_configuration_is_shown(cli, tiny) -> None:
    outcome = cli("inspect", tiny, "--layers", "--show-config", "--json")
    assert outcome.status == 0
    assert "  layers = True  (given)" in outcome.err
    assert "  memory = False\n" in outcome.err
    json.loads(outcome.out)


def test_the_command_that_repeats_a_report(cli, tiny, tmp_path) -> None:
    """What the report prints is what the shell understands, and it means the same."""
    output = tmp_path / "with space.onnx"
    arguments = ("--no-optimize", "--shape", "x:2x4", "--json", "--force")
    document = json.loads(cli("convert", tiny, "-o", output, *arguments).out)
    words = shlex.split(document["reproduce"])
    assert words[0] == "infertool"
    again = json.loads(cli(*words[1:]).out)
    assert again["config"] == document["config"]
    assert again["artifact"]["sha256"] == document["artifact"]["sha256"]
