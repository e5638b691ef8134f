"""Engines under one interface."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import TensorInfo
from infer_runtime.errors import FeedError, MissingExtraError, ModelError, UsageError
from infer_tool.emitters.onnx import save_onnx
from infer_tool.engines import ENGINES, available_engines, open_engine

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


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
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
    with pytest.raises(UsageError, match="expected one of auto, onnxruntime, reference"):
        open_engine("tensorrt", model)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'infertool\[engines\]'"):
        open_engine("onnxruntime", model)


@pytest.mark.parametrize("engine", ["onnxruntime", "reference"])
def test_lean_gives_the_same_outputs(engine, model) -> None:
    np.testing.assert_array_equal(
        open_engine(engine, model, lean=True).run({"x": X})["y"],
        open_engine(engine, model).run({"x": X})["y"],
    )
