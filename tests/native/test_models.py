"""Whole models as compiled C against ONNX Runtime without its optimisations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_native import NativeModel, emit_model
from infer_native.isa import ISAS, runs_here
from infer_runtime.errors import FeedError, ModelError, UnsupportedOpError, UsageError

SAMPLES = Path(__file__).parents[2] / "sample_models"
HERE = [name for name, isa in ISAS.items() if runs_here(isa)]


def reference(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def agree(native, model: ir.Model, feeds: dict[str, np.ndarray], isa: str = "auto") -> None:
    got = native(model, feeds, isa)
    for name, wanted in reference(model, feeds).items():
        assert got[name].dtype == wanted.dtype
        scale = max(float(np.abs(wanted).max(initial=0)), 1e-6)
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=2e-6 * scale, err_msg=name)


@pytest.mark.parametrize(
    ("name", "data"), [("cnn", ""), ("mlp", ""), ("gru", "_rows"), ("keras", "_nhwc")]
)
def test_sample_models(native, name: str, data: str) -> None:
    model = ir.load(SAMPLES / f"digits_{name}.onnx")
    with np.load(SAMPLES / f"digits{data}.npz") as arrays:
        (key,) = set(arrays.files) - {"labels"}
        feeds = {key: arrays[key][:3].astype(np.float32)}
    agree(native, model, {model.graph.inputs[0].name: feeds[key]})


@pytest.mark.parametrize("isa", HERE)
def test_every_instruction_set_of_this_machine(native, isa: str) -> None:
    model = ir.load(SAMPLES / "digits_cnn.onnx")
    with np.load(SAMPLES / "digits.npz") as arrays:
        agree(native, model, {"image": arrays["image"][:1]}, isa)


CHAIN = """<ir_version: 10, opset_import: ["": 20]>
t (float[2,3,5] x, float[3,1] s) => (float[2,5,3] y, float[2,3,5] a, float[2,3,5] z)
{ h = Mul(x, s)  a = Sigmoid(h)  e = Exp(a)  f = Sub(e, x)  y = Transpose<perm = [0, 2, 1]>(f)
  z = Identity(x) }"""


def test_chains_outputs_in_the_middle_and_inputs_passed_through(native) -> None:
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(0.3, 9, (2, 3, 5)), "s": rng.normal(0.3, 9, (3, 1))}
    agree(native, ir.from_onnx_text(CHAIN), {k: v.astype(np.float32) for k, v in feeds.items()})


FUNCTIONS = """<ir_version: 10, opset_import: ["": 20]>
t (float[n] x) => (float[n] exp, float[n] erf, float[n] tanh)
{ exp = Exp(x)  erf = Erf(x)  tanh = Tanh(x) }"""


def test_functions_over_the_whole_range(native) -> None:
    """Against double precision: an ulp or two everywhere, limits and NaN as in IEEE."""
    x = np.concatenate([np.linspace(-87.3, 88.7, 4001), np.linspace(-5, 5, 4001), [1e-30, 0]])
    x = np.concatenate([x, [-np.inf, np.inf, np.nan, -200, 200]]).astype(np.float32)
    got = native(ir.from_onnx_text(FUNCTIONS), {"x": x})
    with np.errstate(over="ignore"):
        exact = {
            "exp": np.exp(x.astype(np.float64)),
            "erf": np.array([math.erf(v) for v in x.tolist()]),
            "tanh": np.tanh(x.astype(np.float64)),
        }
        for name, wanted in exact.items():
            np.testing.assert_allclose(
                got[name], wanted.astype(np.float32), rtol=3e-7, atol=0, err_msg=name
            )


def test_the_same_bytes_twice() -> None:
    model = ir.load(SAMPLES / "digits_cnn.onnx")
    first, second = (emit_model(model, {"image": (1, 1, 8, 8)}, "scalar") for _ in range(2))
    assert first == second
    assert first.arena_bytes <= 1.05 * first.arena_bound


def test_an_operator_without_kernel_is_named() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    t (float[4] x) => (int64[1,n] y) { y = NonZero(x) }"""
    with pytest.raises(UnsupportedOpError, match="NonZero"):
        emit_model(ir.from_onnx_text(text))


def test_a_shape_that_depends_on_data_is_refused() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    t (float[4] x, int64[2] s) => (float[m,n] y) { y = Reshape(x, s) }"""
    with pytest.raises(ModelError, match=r"shape is not fixed|must be a constant"):
        emit_model(ir.from_onnx_text(text))


def test_a_dimension_left_open_is_named() -> None:
    text = '<ir_version: 10, opset_import: ["": 20]> t (float[n] x) => (float[n] y) { y = Exp(x) }'
    with pytest.raises(UsageError, match="'x' has no fixed size"):
        emit_model(ir.from_onnx_text(text))


def test_wrong_feeds_do_not_reach_the_code(native, library_folder) -> None:
    from infer_native import build_library

    text = '<ir_version: 10, opset_import: ["": 20]> t (float[4] x) => (float[4] y) { y = Exp(x) }'
    emitted = emit_model(ir.from_onnx_text(text), isa="scalar")
    model = NativeModel(emitted, build_library(emitted, folder=library_folder))
    for feeds in (
        {"x": np.zeros(5, np.float32)},
        {"x": np.zeros(4, np.float64)},
        {},
        {"x": np.zeros(4, np.float32), "z": np.zeros(4, np.float32)},
    ):
        with pytest.raises(FeedError):
            model.run(feeds)
