"""`infertool run recipe.yaml`: stages in order, judged against the first source, or refused by line."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

from infer_tool.engines import open_engine
from infer_tool.recipe.schema import FILE, to_text

PIPELINE = """\
source: {samples}/digits_mlp.onnx
output: {folder}/out.onnx
data: {folder}/train.npz
eval: {folder}/test.npz
seed: 3
runs: 10
max-drop: 20%
stages:
  - optimize:
  - prune: {{target-macs: 60%, epochs: 2}}
  - distill: {{epochs: 1}}
  - quantize:
      scheme: int8
      calib-samples: 32
"""


@pytest.fixture
def folder(samples, tmp_path: Path) -> Path:
    """The digits in two parts."""
    with np.load(samples / "digits.npz") as arrays:
        for name, part in (("train", slice(0, 600)), ("test", slice(600, None))):
            np.savez(tmp_path / f"{name}.npz", **{k: v[part] for k, v in arrays.items()})
    return tmp_path


def write(folder: Path, samples: Path, text: str = PIPELINE) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text.format(samples=samples, folder=folder))
    return path


def test_a_pipeline_is_measured_against_the_first_source(cli, samples, folder) -> None:
    pytest.importorskip("torch")
    recipe, report = write(folder, samples), folder / "report"
    result = cli("run", recipe, "--json", "--report", report)
    assert result.status == 0, result.err
    document = json.loads(result.out)
    rows = document["details"]["Pipeline"]["rows"]
    assert [row[0] for row in rows] == [
        "source", "1. optimize", "2. prune", "3. distill", "4. quantize",
    ]  # fmt: skip
    names = [stage["name"] for stage in document["stages"]]
    assert {"2.prune/train", "3.distill/student", "4.quantize/quantize", "4.quantize"} <= {*names}
    assert document["artifact"]["macs"] < 0.61 * document["source"]["macs"]
    # The drop is from the source to the end, not of the last stage alone.
    with np.load(folder / "test.npz") as data:
        feeds, labels = {k: v for k, v in data.items() if k != "labels"}, data["labels"]
    scores = [
        open_engine("onnxruntime", path).run(feeds)["logits"].argmax(1) == labels
        for path in (samples / "digits_mlp.onnx", folder / "out.onnx")
    ]
    wanted = np.mean(scores[0]) - np.mean(scores[1])
    assert document["accuracy"]["drop"] == pytest.approx(wanted, abs=1e-6)
    assert [row["model"] for row in document["latency"]] == [
        "source", "1.optimize", "2.prune", "3.distill", "result",
    ]  # fmt: skip
    assert "4. quantize" in (report / "report.md").read_text()
    inputs = json.loads((report / "manifest.json").read_text())["inputs"]
    assert {Path(p).name for p in inputs} == {
        "recipe.yaml", "digits_mlp.onnx", "train.npz", "test.npz",
    }  # fmt: skip
    locked = cli("run", "--locked", report / "manifest.json", "--json")
    assert locked.status == 0, locked.err
    assert [row[3] for row in json.loads(locked.out)["details"]["Bytes"]["rows"]] == ["same"]


def test_what_is_measured_on_is_not_calibrated_on(cli, samples, folder) -> None:
    """`--data` with `--eval` are two sets: all of the second is measured."""
    words = ["quantize", samples / "digits_mlp.onnx", "-o", folder / "int8.onnx", "--json"]
    words += ["--data", folder / "train.npz", "--eval", folder / "test.npz", "--runs", 0]
    result = cli(*words)
    assert result.status == 0, result.err
    assert json.loads(result.out)["accuracy"]["samples"] == 119


EXACT = """\
source: {samples}/digits_mlp.onnx
output: {folder}/out.onnx
stages:
  - convert: {{level: 1}}
  - quantize: {{scheme: int8-weight}}
"""


def test_another_output_and_no_data(cli, samples, folder) -> None:
    text = EXACT.replace("quantize: {{scheme: int8-weight}}", "optimize: {{level: 1}}")
    recipe, out = write(folder, samples, text), folder / "else.onnx"
    assert cli("run", recipe, "-o", out).status == 0
    assert out.exists()
    assert not (folder / "out.onnx").exists()
    refused = cli("run", recipe, "-o", out)
    assert refused.status == 2
    assert "--force" in refused.err


BAD = {
    "an unknown key": (EXACT + "optput: x\n", 6, "did you mean 'output'?"),
    "an unknown option": (EXACT.replace("level", "levle"), 4, "stages.1.convert.levle: unknown key; did you mean 'level'?"),
    "an unknown command": (EXACT.replace("quantize", "quantise"), 5, "did you mean 'quantize'?"),
    "a value": (EXACT.replace("scheme: int8-weight", "scheme: int9"), 5, "scheme"),
    "a number": (
        EXACT.replace("scheme: int8-weight", "calib-samples: 0"), 5, "greater than or equal to 1",
    ),
    "a key twice": (EXACT + "seed: 1\nseed: 2\n", 7, "given twice"),
    "an alias": (EXACT + "eval: &a x\ndata: *a\n", 7, "aliases"),
    "no source": (EXACT.replace("source", "data"), 1, "source: is missing"),
    "no stages": (EXACT[: EXACT.index("stages")], 1, "stages: is missing"),
    "two commands in one": (
        EXACT.replace("  - quantize", "    quantize"), 4, "a stage is one command",
    ),
    "C in the middle": (EXACT.replace("level: 1", "to: c"), 4, "writes ONNX"),
    "nothing to measure on": (EXACT + "data: {folder}/train.npz\n", 5, "give 'eval' too"),
    "no YAML": ("source: [1, 2\n", 2, "not YAML"),
    "no mapping": ("- 1\n- 2\n", 1, "expected keys and values"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_recipe_is_refused_by_line(cli, samples, folder, case) -> None:
    text, line, words = BAD[case]
    recipe = write(folder, samples, text)
    result = cli("run", recipe, "--json")
    assert result.status == 2, result.err
    message = json.loads(result.out)["error"]["message"]
    assert message.startswith(f"{recipe}:{line}: ")
    assert words in message
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 100_000])
def test_what_is_no_recipe_at_all(cli, tmp_path, content) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    result = cli("run", path)
    assert result.status == 2, result.err
    assert str(path) in result.err
    assert cli("run", tmp_path / "none.yaml").status == 2
    assert cli("run").status == 2
    assert cli("run", path, "--locked", path).status == 2


def test_a_stage_that_fails_is_named_and_nothing_is_left(cli, samples, folder) -> None:
    exact = EXACT.replace("quantize: {{scheme: int8-weight}}", "optimize:")
    gate = exact.replace("level: 1", "max-size: 1B")
    failed = cli("run", write(folder, samples, gate), "--json")
    assert failed.status == 1, failed.err
    assert "recipe.yaml:4: stage 1, convert: gate failed: max-size" in failed.err
    assert json.loads(failed.out)["gates"][0]["passed"] is False
    limit = exact + "max-size: 1B\n"
    assert cli("run", write(folder, samples, limit)).status == 1
    assert not list(folder.glob("*out.onnx*"))


def test_the_published_schema_knows_what_is_accepted(samples, folder) -> None:
    assert FILE.read_text() == to_text(), "run python -m infer_tool.recipe.schema"
    validator = jsonschema.Draft202012Validator(json.loads(FILE.read_text()))
    good = yaml.safe_load(PIPELINE.format(samples=samples, folder=folder))
    validator.validate(good)
    for wrong in ({**good, "stages": []}, {**good, "optput": 1}, {**good, "stages": [{"a": {}}]}):
        assert not validator.is_valid(wrong)
