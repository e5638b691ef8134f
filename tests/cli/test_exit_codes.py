"""Bad and failing situations of every command: the status, one line, JSON that stays JSON, no file."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from infer_tool.config import COMMANDS

Situation = tuple[str, int, str]  # command line, status, words of the message

# {tiny} is a good model, {wide} one with another input, {twin} tiny with a changed weight.
SITUATIONS: list[Situation] = [
    # Usage, of every command
    *[(f"{name} --no-such-option", 2, "no-such-option") for name in COMMANDS],
    ("explode {tiny}", 2, "explode"),
    ("convert", 2, "source"),
    ("convert {tiny}", 2, "output"),
    ("verify {tiny}", 2, "candidate"),
    ("inspect", 2, "model"),
    ("bench", 2, "models"),
    ("run", 2, "--locked"),
    ("optimize {tiny} -o {out} --level five", 2, "--level"),
    ("optimize {tiny} -o {out} --level 9", 2, "at most 3"),
    ("optimize {tiny} -o {out} --passes no-such-pass", 2, "no-such-pass"),
    ("optimize {tiny} -o {out} --time-budget never", 2, "never"),
    ("optimize {tiny} -o {out} --max-size big", 2, "big"),
    ("optimize {tiny} -o {folder}/none/o.onnx", 2, "does not exist"),
    ("optimize {tiny} -o {folder}", 2, "is a folder"),
    ("optimize {tiny} -o {tiny}", 2, "exists already"),
    ("optimize {tiny} -o /proc/o.onnx", 2, "cannot be written"),
    ("optimize {tiny} -o {out} --report {tiny}", 2, "--report"),
    ("optimize {tiny} -o {out} --data {folder}/none.npz", 2, "none.npz"),
    ("optimize {tiny} -o {out} --shape x", 2, "--shape"),
    ("optimize {tiny} -o {out} --shape x:0x4", 2, "--shape"),
    ("optimize {tiny} -o {out} --shape x:1x5", 2, "does not fit"),
    ("convert {tiny} -o {out} --output-name z", 2, "z"),
    ("convert {folder}/none.py:make -o {out}", 2, "none.py"),
    ("quantize {tiny} -o {out}", 2, "--data"),
    ("quantize {tiny} -o {out} --data {data} --scheme int9", 2, "int9"),
    ("quantize {tiny} -o {out} --data {data} --calib-samples 20 --metric best", 2, "best"),
    ("quantize {tiny} -o {out} --data {data} --max-drop lots", 2, "lots"),
    ("quantize {tiny} -o {out} --data {data} --min-coverage 120%", 2, "120%"),
    ("quantize {tiny} -o {out} --data {data} --calib-samples 60", 2, "--calib-samples"),
    ("quantize {tiny} -o {out} --calib {data}", 2, "--eval"),
    ("quantize {tiny} -o {out} --data {wrong}", 2, "z"),
    ("quantize {tiny} -o {out} --data {data} --preprocess crop=2", 2, "--preprocess"),
    ("quantize {tiny} -o {out} --data {data} --epochs 3", 2, "--train"),
    ("prune {tiny} -o {out} --data {data}", 2, "--target-macs"),
    ("prune {tiny} -o {out} --target-macs 50%", 2, "--data"),
    ("prune {tiny} -o {out} --data {data} --target-macs 150%", 2, "150%"),
    ("prune {tiny} -o {out} --data {data} --sparsity 50% --pattern 4:2", 2, "--pattern"),
    ("distill {tiny} -o {out} --data {data}", 2, "--student"),
    ("distill {tiny} -o {out} --data {data} --batch-size 8 --student {wide}", 2, "wide"),
    ("cluster {tiny} -o {out} --data {data} --clusters 1", 2, "--clusters"),
    ("cluster {tiny} -o {out} --data {data} --per block", 2, "block"),
    ("factorize {tiny} -o {out} --data {data}", 2, "--target-params"),
    ("factorize {tiny} -o {out} --data {data} --energy 2", 2, "--energy"),
    ("verify {tiny} {tiny} --tolerance -1", 2, "--tolerance"),
    ("verify {tiny} {tiny} --nonfinite perhaps", 2, "perhaps"),
    ("verify {tiny} {tiny} --atol q:1", 2, "outputs are y"),
    ("verify {tiny} {tiny} --atol y", 2, "name:1e-4"),
    ("verify {tiny} {tiny} --engine tensorrt", 2, "tensorrt"),
    ("verify {tiny} {tiny} --reference-engine tensorrt", 2, "tensorrt"),
    ("verify {tiny} {tiny} --engine torch", 2, "use --engine onnxruntime"),
    ("verify {tiny} {wide}", 2, "inputs"),
    ("verify {tiny} {tiny} --target-cpu z80", 2, "z80"),
    ("bench {tiny} --engine cuda", 2, "cuda"),
    ("bench {tiny} --runs -3", 2, "--runs"),
    ("bench {tiny} --max-latency fast", 2, "fast"),
    ("bench {tiny} --matrix rows=2", 2, "rows=2"),
    ("bench {tiny} --baseline {folder}/none.json", 2, "--update-baseline"),
    ("bench {tiny} --baseline {data}", 2, "not a baseline"),
    ("bench {tiny} --max-latency-regress 5%", 2, "--baseline"),
    ("bench {tiny} --shape x:1x7", 2, "does not fit"),
    ("inspect {tiny} --memory", 2, "--shape"),
    ("inspect {folder}/none.onnx", 2, "no such file"),
    ("run --locked {folder}/none.json", 2, "none.json"),
    ("run --locked {tiny}", 2, "not a manifest"),
    # Models that are none
    ("inspect {empty}", 3, "empty"),
    ("convert {text} -o {out}", 3, "text"),
    ("convert {pickle} -o {out}", 3, "torch.export"),
    ("convert {zip} -o {out}", 3, "zip"),
    ("bench {half}", 3, "half"),
    ("verify {tiny} {half}", 3, "half"),
    ("quantize {unknown} -o {out} --data {data}", 3, "Frobnicate"),
    ("verify {unknown} {unknown} --engine reference", 3, "Frobnicate"),
    ("optimize {escape} -o {out}", 3, "escape.onnx"),
    ("optimize {giant} -o {out}", 3, "giant"),
    # Checks that fail
    ("optimize {tiny} -o {out} --max-size 10B", 1, "max-size"),
    ("convert {tiny} -o {out} --max-size 10B", 1, "max-size"),
    ("quantize {tiny} -o {out} --data {data} --calib-samples 20 --runs 0 --max-drop -90%", 1, "max-drop"),
    ("bench {tiny} --runs 3 --max-latency 1us", 1, "max-latency"),
    ("bench {tiny} --runs 3 --best-batch 1us", 1, "best-batch"),
    ("verify {tiny} {twin}", 4, "would pass with --tolerance"),
    ("verify {tiny} {twin} --min-sqnr 90", 4, "90 dB"),
    ("verify {tiny} {twin} --atol y:1e-9", 4, "would pass with --atol y:"),
    ("run --locked {stale}", 4, "not the same bytes"),
    ("run --locked {moved}", 2, "not the same input"),
]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, tiny: Path, tiny_data: Path) -> dict[str, Path]:
    """Good things and bad things, by the names that the situations use."""
    found = {
        n: tmp_path / f"{n}.onnx"
        for n in ("empty", "text", "half", "unknown", "escape", "giant", "wide", "twin")
    }
    found["empty"].write_bytes(b"")
    found["text"].write_bytes(b"text, not a model\n" * 9)
    found["half"].write_bytes(tiny.read_bytes()[: tiny.stat().st_size // 2])
    found["pickle"] = tmp_path / "pickle.pt2"
    found["pickle"].write_bytes(pickle.dumps({"a": 1}))
    found["zip"] = tmp_path / "zip.pt2"
    with zipfile.ZipFile(found["zip"], "w") as archive:
        archive.writestr("a", "b")
    found["wrong"] = tmp_path / "wrong.npz"
    np.savez(found["wrong"], z=np.zeros((60, 4), np.float32))
    _variants(found, onnx.load(tiny))
    lock = {
        "schema": 1, "command": "optimize", "inputs": {}, "outputs": {str(tmp_path / "o.onnx"): "0" * 64},
        "config": {"model": str(tiny), "output": str(tmp_path / "o.onnx")},
    }  # fmt: skip
    found["stale"], found["moved"] = tmp_path / "stale.json", tmp_path / "moved.json"
    found["stale"].write_text(json.dumps(lock))
    found["moved"].write_text(json.dumps({**lock, "inputs": {str(tiny): "0" * 64}}))
    return found | {
        "tiny": tiny,
        "data": tiny_data,
        "folder": tmp_path,
        "out": tmp_path / "out.onnx",
    }


def _variants(found: dict[str, Path], model: onnx.ModelProto) -> None:
    def save(name: str, change) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        change(copy.graph)
        found[name].write_bytes(copy.SerializeToString())

    def external(graph: onnx.GraphProto, **entries: str) -> None:
        weight = graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            weight.external_data.add(key=key, value=value)

    def twin(graph: onnx.GraphProto) -> None:
        array = onnx.numpy_helper.to_array(graph.initializer[0]) + np.float32(0.1)
        graph.initializer[0].CopyFrom(
            onnx.numpy_helper.from_array(array, graph.initializer[0].name)
        )

    def giant(graph: onnx.GraphProto) -> None:
        graph.initializer[0].dims[:] = [1 << 20, 1 << 20]

    save("twin", twin)
    save("giant", giant)
    save("unknown", lambda g: setattr(g.node[1], "op_type", "Frobnicate"))
    save("escape", lambda g: external(g, location="../../etc/passwd"))
    node = helper.make_node("Relu", ["a"], ["y"])
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 9]) for n in ("a", "y")]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), found["wide"])


def test_there_are_enough() -> None:
    assert len(SITUATIONS) >= 60
    assert {s[0].split()[0] for s in SITUATIONS} >= set(COMMANDS)


@pytest.mark.parametrize(("line", "status", "words"), SITUATIONS, ids=[s[0] for s in SITUATIONS])
def test_situation(cli, files, tmp_path, line, status, words) -> None:
    arguments = [word.format(**files) for word in line.split()]
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    outcome = cli(*arguments)
    errors = [text for text in outcome.err.splitlines() if text.startswith("error: ")]
    assert outcome.status == status, outcome.err
    assert len(errors) == 1, outcome.err
    assert words in errors[0]
    assert "Traceback" not in outcome.err
    if status in (2, 3):
        assert outcome.out == ""
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(("line", "status", "words"), SITUATIONS, ids=[s[0] for s in SITUATIONS])
def test_situation_as_json(cli, files, line, status, words) -> None:
    """stdout is one document, whatever happened; the fixture checks it against the schema."""
    outcome = cli(*[word.format(**files) for word in line.split()], "--json")
    document = json.loads(outcome.out)
    assert outcome.status == status
    assert document["passed"] is False
    if "error" in document:
        assert document["error"]["exit_code"] == status
        assert words in document["error"]["message"]
