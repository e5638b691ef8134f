"""Engines under one interface."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import TensorInfo
from infer_runtime.errors import FeedError, MissingExtraError, ModelError, UsageError
from infer_tool.emitters.onnx import save_onnx
from infer_tool.engines import ENGINES, available_engines, open_engine

SAMPLES = Path(__file__).parents[2] / "sample_models"
TEXT = """<ir_version: 10, opset_import: ["": 20]>
t (float[batch,4] x, float[4,64] w) => (float[batch,64] y) { y = MatMul(x, w) }"""
X = np.arange(12, dtype=np.float32).reshape(3, 4)
W = np.arange(256, dtype=np.float32).reshape(4, 64)


@pytest.fixture
def model() -> ir.Model:
    """y = x @ W."""
    model = ir.from_onnx_text(TEXT)
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(W, name="w")
    model.graph.register_initializer(value)
    return model


ONNX_ENGINES = [name for name, kind in ENGINES.items() if kind.reads == "onnx"]


@pytest.fixture(params=ONNX_ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if available_engines()[request.param] is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def test_a_model_in_memory_and_a_file(tmp_path, model, engine) -> None:
    save_onnx(model, tmp_path / "m.onnx")
    for source in (model, tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        opened = open_engine(engine, source, threads=1, shapes=None)
        np.testing.assert_array_equal(opened.run({"x": X})["y"], X @ W)
        assert opened.inputs == (TensorInfo("x", ("batch", 4), np.dtype(np.float32)),)
        assert opened.outputs == (TensorInfo("y", ("batch", 64), np.dtype(np.float32)),)
        assert opened.version == available_engines()[engine]


def test_weights_in_another_file(tmp_path, model, engine) -> None:
    """A model in memory whose weights are still on disk."""
    save_onnx(model, tmp_path / "m.onnx", inline_limit=0)
    loaded = ir.load(tmp_path / "m.onnx")
    assert isinstance(loaded.graph.initializers["w"].const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(open_engine(engine, loaded).run({"x": X})["y"], X @ W)


def test_shapes(model, engine) -> None:
    opened = open_engine(engine, model, shapes={"x": (3, 4)})
    np.testing.assert_array_equal(opened.run({"x": X})["y"], X @ W)
    for shapes, message in (({"z": (1,)}, "'z'"), ({"x": (1, 5)}, "'x'"), ({"x": (1,)}, "'x'")):
        with pytest.raises(UsageError, match=message):
            open_engine(engine, model, shapes=shapes)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "'x' has no feed"),
        ({"x": X, "z": X}, "no input named 'z'"),
        ({"x": X.astype(np.float64)}, "'x': dtype float64, expected float32"),
        ({"x": X[:, :3]}, r"'x': shape \[3, 3\], expected \[batch, 4\]"),
    ],
)
def test_wrong_feeds(model, engine, feeds, message) -> None:
    opened = open_engine(engine, model)
    with pytest.raises(FeedError, match=message):
        opened.run(feeds)


def test_optimisations_can_be_left_out(model, engine) -> None:
    for optimize in (True, False):
        opened = open_engine(engine, model, optimize=optimize)
        np.testing.assert_array_equal(opened.run({"x": X})["y"], X @ W)


def test_types_without_a_name_in_numpy() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        t (bfloat16[2] x, double[2] d, bool[2] b, string[2] s)
        => (float[2] y, double[2] e, bool[2] c, string[2] r)
        { y = Cast<to=1>(x) e = Identity(d) c = Not(b) r = Identity(s) }"""
    )
    inputs = open_engine("onnxruntime", model).inputs
    assert [i.dtype.name for i in inputs] == ["bfloat16", "float64", "bool", "object"]


def test_a_model_that_the_engine_refuses(tmp_path, engine) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a\xff")
    with pytest.raises(ModelError, match=r"m\.onnx: "):
        open_engine(engine, tmp_path / "m.onnx")


def test_a_failing_run_is_one_line(engine) -> None:
    model = ir.from_onnx_text(
        """<ir_version: 10, opset_import: ["": 20]>
        t (float[4] x, int64[n] s) => (float y) { y = Reshape(x, s) }"""
    )
    with pytest.raises(ModelError) as caught:
        open_engine(engine, model).run({"x": X[0], "s": np.array([3])})
    assert "\n" not in str(caught.value)


def test_engines_that_are_not_there(model, monkeypatch) -> None:
    with pytest.raises(UsageError, match="expected one of auto, onnxruntime, reference, openvino"):
        open_engine("tensorrt", model)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'infertool\[engines\]'"):
        open_engine("onnxruntime", model)


def test_lean_gives_the_same_outputs(engine, model) -> None:
    np.testing.assert_array_equal(
        open_engine(engine, model, lean=True).run({"x": X})["y"],
        open_engine(engine, model).run({"x": X})["y"],
    )


def test_every_engine_computes_the_sample(engine) -> None:
    """The digits classifier, against ONNX Runtime without optimisations."""
    arrays = np.load(SAMPLES / "digits.npz")
    feeds = {"image": arrays["image"][:8]}
    path = SAMPLES / "digits_cnn.onnx"
    wanted = open_engine("onnxruntime", path, optimize=False).run(feeds)
    got = open_engine(engine, path, threads=1).run(feeds)
    assert list(got) == list(wanted)
    np.testing.assert_allclose(got["logits"], wanted["logits"], rtol=0, atol=2e-5)


def test_an_engine_says_which_files_it_runs(tmp_path, engine) -> None:
    with pytest.raises(UsageError, match=rf"is pt2, {engine} runs onnx files only; use --engine t"):
        open_engine(engine, SAMPLES / "digits_cnn.pt2")
    for foreign in ("litert", "torch"):
        with pytest.raises(UsageError, match="use --engine onnxruntime, reference"):
            open_engine(foreign, SAMPLES / "digits_cnn.onnx")


def test_torch_runs_the_program() -> None:
    torch = pytest.importorskip("torch")
    opened = open_engine("torch", SAMPLES / "digits_cnn.pt2", threads=1)
    images = np.load(SAMPLES / "digits.npz")["image"][:5]
    program = torch.export.load(SAMPLES / "digits_cnn.pt2").module()
    (got,) = opened.run({"image": images}).values()
    np.testing.assert_array_equal(got, program(torch.from_numpy(images)).detach().numpy())
    assert opened.version == available_engines()["torch"]
    with pytest.raises(FeedError, match="'image' has no feed"):
        opened.run({})


@pytest.fixture(scope="module")
def tflite(tmp_path_factory) -> Path:
    """y = x @ W as a TFLite file with a signature, of any batch."""
    tf = pytest.importorskip("tensorflow")
    module = tf.Module()
    module.w = tf.Variable(W)
    function = tf.function(
        lambda x: {"y": x @ module.w},
        input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], module
    )
    path = tmp_path_factory.mktemp("tflite") / "m.tflite"
    path.write_bytes(converter.convert())
    return path


def test_litert_runs_the_file(tflite) -> None:
    opened = open_engine("litert", tflite, threads=1)
    assert opened.version == available_engines()["litert"]
    (name,) = [info.name for info in opened.inputs]
    assert opened.inputs[0].shape == (None, 4)
    for rows in (X, X[:1], X):
        (got,) = opened.run({name: rows}).values()
        np.testing.assert_array_equal(got, rows @ W)
    with pytest.raises(FeedError, match="float64, expected float32"):
        opened.run({name: X.astype(np.float64)})


def test_litert_refuses_a_damaged_file(tmp_path, tflite) -> None:
    (tmp_path / "bad.tflite").write_bytes(tflite.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"bad\.tflite: LiteRT refuses it"):
        open_engine("litert", tmp_path / "bad.tflite")
