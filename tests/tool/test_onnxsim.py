"""onnxsim as a stage: taken when smaller and equal, refused with a reason for everything else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_tool import optimize
from infer_tool.onnxsim import OnnxSim
from passes.config import OptimizeConfig
from passes.default import PASSES
from passes.pipeline import optimize as run_passes

TEXT = """<ir_version: 10, opset_import: ["": 20]> t (float[N,2,4] x) => (float[N,4,2] y)
{ a = Transpose<perm=[0,2,1]>(x)  b = Transpose<perm=[0,2,1]>(a)  c = Relu(b)  d = Relu(c)
  y = Transpose<perm=[0,2,1]>(d) }"""
SILERO = "silero_vad/data/silero_vad_16k_op15.onnx"


def _model(text: str = TEXT) -> ir.Model:
    model = ir.from_onnx_text(text)
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
    return model


def _stage(item: OnnxSim, model: ir.Model):
    """The stage alone, under the pipeline's proof."""
    config = OptimizeConfig(passes="onnxsim")
    result = run_passes(model, config, passes=(*PASSES, item))
    return result.model, result.records[0]


def test_a_smaller_equal_result_is_taken() -> None:
    model = _model()
    result, record = _stage(OnnxSim(), model)
    assert record.changes > 0
    assert not record.refusals
    assert len(list(result.graph)) < 5
    assert [str(d) for d in result.graph.inputs[0].shape] == ["N", "2", "4"]
    assert [str(d) for d in result.graph.outputs[0].shape] == ["N", "4", "2"]
    x = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    np.testing.assert_array_equal(
        Session(result).run({"x": x})["y"], np.maximum(x, 0).transpose(0, 2, 1)
    )


def test_a_result_that_is_not_smaller_is_refused() -> None:
    text = '<ir_version: 10, opset_import: ["": 20]> t (float[2] x) => (float[2] y) { y = Relu(x) }'
    _, record = _stage(OnnxSim(), _model(text))
    assert record.changes == 0
    assert "not smaller: 1 nodes" in record.refusals[0].reason


def _child(tmp_path: Path, body: str) -> tuple[str, ...]:
    """A stand-in for the child: IN, OUT and the limit are its arguments."""
    path = tmp_path / "child.py"
    path.write_text(f"import os, signal, sys, time\nimport onnx\n{body}\n")
    return (sys.executable, str(path))


BROKEN = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "it crashed: signal 11",
    "os.kill(os.getpid(), signal.SIGKILL)": "it crashed: signal 9",
    "raise ValueError('no way')": "it failed: ValueError: no way",
    "time.sleep(60)": "did not end within 2 s",
    "pass": "it failed: status 0",
    "open(sys.argv[2], 'wb').write(b'garbage')": "not an ONNX model",
}


@pytest.mark.parametrize("body", BROKEN)
def test_a_broken_child_is_a_refusal(tmp_path, body) -> None:
    model = _model()
    result, record = _stage(OnnxSim(seconds=2, command=_child(tmp_path, body)), model)
    assert BROKEN[body] in record.refusals[0].reason
    assert len(list(result.graph)) == 5


WRONG = {
    "m.graph.node[3].op_type = 'Neg'; m.graph.node[4].input[0] = 'c'; del m.graph.node[3]": None,
    "del m.graph.node[:4]; m.graph.node[0].input[0] = 'x'": "changed the outputs",
    "del m.graph.node[:4]; m.graph.node[0].input[0] = 'z'; m.graph.input[0].name = 'z'": "the inputs",
    "m.opset_import[0].version = 21": "the opset",
    "m.graph.node[4].op_type = 'Nothing'": "Nothing",
}


@pytest.mark.parametrize("edit", WRONG)
def test_a_wrong_result_is_refused(tmp_path, edit) -> None:
    """Smaller is not enough; the first one is right: Relu of Relu is Relu."""
    body = f"m = onnx.load(sys.argv[1])\n{edit}\nonnx.save(m, sys.argv[2])"
    result, record = _stage(OnnxSim(command=_child(tmp_path, body)), _model())
    if WRONG[edit] is None:
        assert len(list(result.graph)) == 4
    else:
        assert WRONG[edit] in record.refusals[0].reason
        assert [n.op_type for n in result.graph][2:4] == ["Relu", "Relu"]
        assert result.graph.inputs[0].name == "x"


def test_the_memory_of_the_child_is_limited() -> None:
    _, record = _stage(OnnxSim(memory=100_000_000), _model())
    assert record.changes == 0
    assert "it failed" in record.refusals[0].reason or "crashed" in record.refusals[0].reason


def test_level_three_of_the_command(samples_folder, tmp_path) -> None:
    source, output = samples_folder / "digits_cnn.onnx", tmp_path / "m.onnx"
    report = optimize(source, output, level=3)
    assert "onnxsim" in [s.name for s in report.stages]
    assert "onnxsim" not in [s.name for s in optimize(source, output, force=True).stages]
    without = optimize(source, output, force=True, level=3, passes="-onnxsim")
    assert "onnxsim" not in [s.name for s in without.stages]
    onnx.checker.check_model(output)


@pytest.fixture
def samples_folder() -> Path:
    return Path(__file__).parents[2] / "sample_models"


@pytest.mark.skipif("INFERTOOL_MODELS" not in os.environ, reason="INFERTOOL_MODELS is not set")
def test_a_real_crash(tmp_path) -> None:
    """onnxsim dies on silero VAD; found below the folder that INFERTOOL_MODELS names."""
    found = sorted(Path(os.environ["INFERTOOL_MODELS"]).rglob(Path(SILERO).name))
    if not found:
        pytest.skip(f"no {SILERO} there")
    report = optimize(
        found[0], tmp_path / "m.onnx", level=3, shape=("input:1x512", "state:2x1x128")
    )
    stage = next(s for s in report.stages if s.name == "onnxsim")
    assert stage.refusals
    assert stage.options["changes"] == 0
