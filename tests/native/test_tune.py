"""`convert --to c --tune`: every choice computes the same, a record gives the same bytes again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import with_constants

from infer_native import NativeModel, build_library, choices, tune
from infer_native.emit import emit_model, emit_prepared
from infer_native.isa import ISAS, at_precision, find_isa, runs_here
from infer_native.prepare import prepare
from infer_native.tuning import Measured, Tuning
from infer_tool.cli import main
from infer_tool.engines.native import has_compiler

if TYPE_CHECKING:
    from pathlib import Path

HERE = [name for name, isa in ISAS.items() if isa.lanes and runs_here(isa)]
TEXT = """<ir_version: 10, opset_import: ["": 20]>
t (float[1,24,9,9] x, float[40,24,3,3] w, float[56,40,1,1] p, float[9,70] m)
  => (float[1,56,9,70] y)
{ a = Conv<pads = [1, 1, 1, 1]>(x, w)  b = Relu(a)  c = Conv(b, p)  y = MatMul(c, m) }"""


@pytest.fixture
def model() -> ir.Model:
    return with_constants(TEXT, 1, 0.1)


@pytest.fixture
def file(model: ir.Model, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    ir.save(model, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "SECONDS", 0.0)
    monkeypatch.setattr(tune, "ROUNDS", 1)


def run(*arguments: object) -> int:
    return main([*(str(a) for a in arguments), "--quiet"])


def offered(model: ir.Model, isa: str) -> dict[str, tuple[choices.Choice, ...]]:
    found: dict[str, tuple[choices.Choice, ...]] = {}

    def keep(key: str, options: tuple[choices.Choice, ...]) -> choices.Choice:
        found[key] = options
        return options[0]

    emit_prepared(prepare(model), find_isa(isa), keep)
    return found


@pytest.mark.parametrize("isa", HERE)
def test_every_choice_computes_the_same(model, compiler: str, library_folder, isa: str) -> None:
    found = offered(model, isa)
    assert {key.split()[0] for key in found} == {"Conv", "MatMul"}
    dense = next(options for key, options in found.items() if "3x3" in key)
    assert {o.winograd for o in dense} == {0, 2, 4}
    x = (np.random.default_rng(1).normal(size=(1, 24, 9, 9)) + 0.3).astype(np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    (wanted,) = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options).run(
        None, {"x": x}
    )
    sources = set()
    for number in range(max(map(len, found.values()))):
        picked = {key: o[min(number, len(o) - 1)] for key, o in found.items()}
        record = Tuning(isa, "", {k: Measured(str(c), {str(c): 1.0}) for k, c in picked.items()})
        emitted = emit_model(model, isa=isa, tuning=record)
        assert {m.key: m.choice for m in emitted.choices} == {k: str(c) for k, c in picked.items()}
        sources.add(emitted.source)
        library = build_library(emitted, compiler=compiler, folder=library_folder)
        got = NativeModel(emitted, library).run({"x": x})["y"]
        atol = 3e-6 * float(np.abs(wanted).max())
        np.testing.assert_allclose(got, wanted, rtol=0, atol=atol, err_msg=str(picked))
    assert len(sources) == number + 1


@pytest.mark.parametrize("isa", HERE)
def test_the_cost_model_is_the_first_choice(model, isa: str) -> None:
    first = emit_prepared(prepare(model), find_isa(isa), lambda _, options: options[0])
    assert first.source == emit_model(model, isa=isa).source
    assert first.weights == emit_model(model, isa=isa).weights
    assert "model_ns" not in first.source


@pytest.mark.parametrize("isa", HERE)
def test_weights_of_bits_have_choices_of_their_own(isa: str) -> None:
    """Panels that are spread are narrower, and are not measured as weights of floats are."""
    floats = with_constants(TEXT.replace("24", "512"), 1)
    bits = with_constants(TEXT.replace("24", "512"), 1)
    for value in bits.graph.initializers.values():
        value.const_value = ir.tensor(np.sign(value.const_value.numpy()).astype(np.float32))
    first = emit_prepared(prepare(bits), find_isa(isa), lambda _, options: options[0])
    assert first.source == emit_model(bits, isa=isa).source
    assert "NXL(" in first.source
    found, others = offered(bits, isa), offered(floats, isa)
    convolutions = {key for key in others if key.startswith("Conv")}  # the product is a short one
    assert {f"{key} bits=1" for key in convolutions} | (set(others) - convolutions) == set(found)
    (dense,) = (options for key, options in found.items() if "3x3" in key)
    assert {o.winograd for o in dense} == {0, 2, 4}


@pytest.mark.skipif("avx512" not in HERE, reason="no avx512 here")
def test_bfloat16_takes_weights_of_bits_as_numbers() -> None:
    model = with_constants(TEXT, 1)
    for value in model.graph.initializers.values():
        value.const_value = ir.tensor(np.sign(value.const_value.numpy()).astype(np.float32))
    emitted = emit_model(model, isa="avx512", precision="bf16")
    assert "BDOT(" in emitted.source
    assert emitted.source == emit_prepared(
        prepare(model), at_precision(find_isa("avx512"), "bf16"), lambda _, options: options[0]
    ).source  # fmt: skip


@pytest.mark.skipif(not has_compiler() or not HERE, reason="no C compiler or no vectors here")
def test_a_record_gives_the_same_bytes(file: Path, tmp_path: Path, compiler: str) -> None:
    first, again, report = tmp_path / "a", tmp_path / "b", tmp_path / "report"
    options = ("--to", "c", "--compiler", compiler)
    assert run("convert", file, "-o", first, *options, "--tune", "--report", report) == 0
    record = json.loads((first / "tuning.json").read_text())
    assert record["compiler"].startswith(compiler)
    assert all(v["choice"] in v["microseconds"] for v in record["layers"].values())
    assert all(t > 0 for v in record["layers"].values() for t in v["microseconds"].values())
    assert "| microseconds of one |" in (first / "README.md").read_text()
    told = json.loads((report / "report.json").read_text())
    assert "tune" in [s["name"] for s in told["stages"]]
    rows = {row[1]: row[2] for row in told["details"]["Tuning"]["rows"]}
    assert rows == {key: v["choice"] for key, v in record["layers"].items()}
    assert run("convert", file, "-o", again, *options, "--tuning", first / "tuning.json") == 0
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {
        p.name: p.read_bytes() for p in again.iterdir()
    }


def _record(**changes: Any) -> str:
    layers = {"MatMul 9x9 9x9": {"choice": "direct/1", "microseconds": {"direct/1": 1.0}}}
    isa = find_isa("auto").name
    return json.dumps({"schema": 1, "isa": isa, "compiler": "gcc", "layers": layers} | changes)


def test_a_target_that_does_not_run_here_is_refused(file: Path, tmp_path: Path, capsys) -> None:
    target = "x86_64-macos" if "neon" in HERE else "aarch64-linux"
    options = ("--to", "c", "--tune", "--target", target)
    assert run("convert", file, "-o", tmp_path / "out", *options) == 6
    assert f"--target {target}" in capsys.readouterr().err.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("options", "record", "told"),
    [
        (("--tune",), None, "--to c"),
        (("--to", "c", "--tune", "--isa", "scalar"), None, "nothing to choose"),
        (("--to", "c", "--tune"), _record(), "leave one of them out"),
        (("--to", "c"), "{", "no record"),
        (("--to", "c"), "[1]", "schema 1"),
        (("--to", "c"), _record(more=1), "expected the keys"),
        (("--to", "c"), _record(isa="mmx"), "with mmx, this is"),
        (("--to", "c"), _record(layers={"a": {}}), "expected the keys choice"),
        (("--to", "c"), _record(layers={"a": {"choice": "x", "microseconds": {}}}), "no choice"),
        (("--to", "c"), _record(), "no layer of this model"),
    ],
)
def test_refusals(file: Path, tmp_path: Path, options, record: str | None, told: str, capsys):
    if not find_isa("auto").lanes and "no layer" in told:
        pytest.skip("no vectors here")
    if record is not None:
        (file.parent / "tuning.json").write_text(record)
        options = (*options, "--tuning", file.parent / "tuning.json")
    assert run("convert", file, "-o", tmp_path / "out", *options) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_a_choice_that_the_layer_has_not(file: Path, model, tmp_path: Path, capsys) -> None:
    if not HERE:
        pytest.skip("no vectors here")
    key = next(k for k in offered(model, "auto") if k.startswith("MatMul"))
    layers = {key: {"choice": "winograd4/1", "microseconds": {"winograd4/1": 1.0}}}
    record = tmp_path / "tuning.json"
    record.write_text(_record(layers=layers))
    assert run("convert", file, "-o", tmp_path / "out", "--to", "c", "--tuning", record) == 2
    assert f"layer {key!r} has no 'winograd4/1'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
