"""Weights in short formats and dynamic products: values, kernels, readers that share, refusals."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant import quantize_model
from quant.config import QuantizeConfig

R = np.random.default_rng(3)
MIX = R.normal(size=(64, 64)) * np.linspace(0.1, 3, 64)
E = R.normal(size=(50, 64)).astype(np.float32)
W = R.normal(size=(64, 96)).astype(np.float32)
V = R.normal(size=(32, 96)).astype(np.float32)
B = R.normal(size=32).astype(np.float32)
TEXT = """t (int64[N,5] ids, float[50,64] e, float[64,96] w, float[32,96] v, float[32] b, int64[2] s)
    => (float[M,32] y)
{ x = Gather(e, ids)  h = MatMul(x, w)  r = Relu(h)  f = Reshape(r, s)  y = Gemm<transB=1>(f, v, b) }"""
FEEDS = [{"ids": R.integers(0, 50, (8, 5))} for _ in range(4)]
WEIGHTS = ["int8", "uint8", "int4", "uint4", "int3", "int2", "fp8", "fp16", "bf16", "palette4"]


@pytest.fixture
def text_model(make) -> ir.Model:
    return make(TEXT, e=E, w=W, v=V, b=B, s=np.array([-1, 96]))


def _sqnr(reference, candidate) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - candidate) ** 2))


def _bytes(model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values())


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_format_end_to_end(text_model, run_ort, name) -> None:
    result = quantize_model(text_model, FEEDS, QuantizeConfig(scheme=f"{name}-weight"))
    wanted, got = run_ort(text_model, FEEDS[0])[0], run_ort(result.model, FEEDS[0])[0]
    least = {"int3": 15, "int2": 6, "palette4": 14, "int4": 20, "uint4": 20, "fp8": 25}.get(
        name, 35
    )
    assert _sqnr(wanted, got) > least
    np.testing.assert_allclose(
        Session(result.model).run(FEEDS[0])["y"], got, rtol=0, atol=1e-5 * np.abs(got).max()
    )
    assert result.coverage.quantized_nodes == 3
    assert result.coverage.macs_fraction == 1
    assert _bytes(result.model) < (0.56 if "16" in name else 0.36) * _bytes(text_model)


@pytest.mark.parametrize("algorithm", ["rtn", "mse", "hqq", "gptq", "awq"])
def test_algorithms(make, run_ort, algorithm) -> None:
    """On inputs that go together and differ in size; those that look at the data win."""
    model = make("t (float[N,64] x, float[64,96] w) => (float[N,96] y) { y = MatMul(x, w) }", w=W)
    feeds = [{"x": (R.normal(size=(64, 64)) @ MIX).astype(np.float32)} for _ in range(8)]
    found = {}
    for name in ("rtn", algorithm):
        config = QuantizeConfig(scheme="int4-weight", algorithm=name)
        result = quantize_model(model, feeds, config).model
        found[name] = _sqnr(run_ort(model, feeds[0])[0], run_ort(result, feeds[0])[0])
    assert found["rtn"] > 15
    gain = {"rtn": 0, "mse": 0.2, "hqq": -0.5, "gptq": 3, "awq": 0.2}[algorithm]
    assert found[algorithm] >= found["rtn"] + gain


def test_engine_kernels(make, engine_ops) -> None:
    """Tanh, as ONNX Runtime 1.31 fuses no short weight into a product that a Relu reads."""
    model = make(TEXT.replace("Relu", "Tanh"), e=E, w=W, v=V, b=B, s=np.array([-1, 96]))
    ops = engine_ops(quantize_model(model, FEEDS, QuantizeConfig(scheme="int4-weight")).model)
    assert ops["MatMulNBits"] == 2
    assert not ops.keys() & {"MatMul", "Gemm", "DequantizeLinear"}
    ops = engine_ops(quantize_model(model, FEEDS, QuantizeConfig(scheme="int8-dynamic")).model)
    assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == 2
    assert not ops.keys() & {"MatMul", "Gemm", "FusedMatMul"}


def test_conv_and_recurrent_weights_fold_at_load(make, engine_ops, run_ort) -> None:
    text = """t (float[2,N,8] x, float[1,64,8] w, float[1,64,16] r, float[4,2,3,3] k) => (float[] y)
    { h, a, b = LSTM<hidden_size=16>(x, w, r)  y = Conv<pads=[1,1,1,1]>(h1, k)  h1 = Identity(h) }"""
    text = text.replace(
        "y = Conv<pads=[1,1,1,1]>(h1, k)  h1 = Identity(h)",
        "h1 = Transpose<perm=[2,1,0,3]>(h)  h2 = Transpose<perm=[0,2,1,3]>(h1)  y = Conv<pads=[1,1,1,1]>(h2, k)",
    )
    r = np.random.default_rng(0)
    model = make(
        text, w=r.normal(size=(1, 64, 8)).astype(np.float32) / 3,
        r=r.normal(size=(1, 64, 16)).astype(np.float32) / 4,
        k=r.normal(size=(4, 2, 3, 3)).astype(np.float32),
    )  # fmt: skip
    feeds = {"x": r.normal(size=(2, 3, 8)).astype(np.float32)}
    result = quantize_model(model, [], QuantizeConfig(scheme="int8-weight")).model
    ops = engine_ops(result)
    assert not ops.keys() & {"DequantizeLinear", "Mul", "Cast"}
    assert _sqnr(run_ort(model, feeds)[0], run_ort(result, feeds)[0]) > 35
    assert _bytes(result) < 0.4 * _bytes(model)


def test_tied_weight_is_stored_once(make, run_ort) -> None:
    """An embedding that is the output projection too, seen through a Transpose."""
    text = """t (int64[N,5] ids, float[50,64] e) => (float[N,5,50] y)
    { x = Gather(e, ids)  t = Transpose<perm=[1,0]>(e)  y = MatMul(x, t) }"""
    model = make(text, e=E)
    result = quantize_model(model, FEEDS, QuantizeConfig(scheme="int8-weight"))
    assert _bytes(result.model) < 0.3 * E.nbytes
    assert _sqnr(run_ort(model, FEEDS[0])[0], run_ort(result.model, FEEDS[0])[0]) > 35
    assert [r.reason for r in result.refusals] == ["its weight t is computed"]


def test_weight_of_two_products_in_a_branch_too(make, run_ort) -> None:
    text = """t (float[N,64] x, float[64,64] w, bool c) => (float[] y)
    { a = MatMul(x, w)  y = If (c) <then_branch = th () => (float[] p) { p = MatMul(a, w) },
                                    else_branch = el () => (float[] q) { q = Neg(a) }> }"""
    weight = R.normal(size=(64, 64)).astype(np.float32)
    model = make(text, w=weight)
    result = quantize_model(model, [], QuantizeConfig(scheme="int8-weight"))
    assert _bytes(result.model) < 0.3 * weight.nbytes
    for c in (False, True):
        feeds = {"x": R.normal(size=(3, 64)).astype(np.float32), "c": np.array(c)}
        assert _sqnr(run_ort(model, feeds)[0], run_ort(result.model, feeds)[0]) > 35


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = MatMul(x, g)", "its weight g is a graph input"),
        ("n = Neg(w)  y = MatMul(x, n)", "its weight n is computed"),
        ("y = MatMul(x, s)", "its weight s has 4 elements"),
    ],
)
def test_reasons(make, body, reason) -> None:
    text = f"""t (float[N,64] x, float[64,96] w, float[64,96] g, float[64,1] v, float[2,2] s) => (float[] y, float[] z)
    {{ {body}  z = MatMul(x, w) }}""".replace("MatMul(x, s)", "MatMul(x2, s)").replace(
        "{ y = MatMul(x2", "{ x1 = MatMul(x, v)  x2 = Concat<axis=1>(x1, x1)  y = MatMul(x2"
    )
    model = make(text, w=W, s=np.eye(2, dtype=np.float32), v=np.ones((64, 1), np.float32))
    result = quantize_model(model, [], QuantizeConfig(scheme="int8-weight"))
    assert any(r.reason.startswith(reason) for r in result.refusals)
    with pytest.raises(UsageError, match="no such node"):
        quantize_model(model, [], QuantizeConfig(scheme="int8-weight", exclude=("typo",)))


def test_excluded_product_keeps_its_weight(text_model) -> None:
    config = QuantizeConfig(scheme="int8-weight", exclude=("n1",))
    result = quantize_model(text_model, [], config)
    np.testing.assert_array_equal(result.model.graph.initializers["w"].const_value.numpy(), W)
    assert result.coverage.macs_fraction < 1


def test_blocks_that_do_not_fit_are_said(make) -> None:
    weight = R.normal(size=(30, 20)).astype(np.float32)
    model = make(
        "t (float[N,30] x, float[30,20] w) => (float[N,20] y) { y = MatMul(x, w) }", w=weight
    )
    result = quantize_model(model, [], QuantizeConfig(scheme="int4-weight", algorithm="mse"))
    assert result.notes == (
        "w: 30 is not divisible by blocks of 32; it has one scale for each channel",
    )
    assert result.model.graph.initializers["w_s"].shape == (20,)


def test_contradictions(text_model) -> None:
    with pytest.raises(UsageError, match="hqq is for integers, not for palette4"):
        quantize_model(text_model, [], QuantizeConfig(scheme="palette4-weight", algorithm="hqq"))
    with pytest.raises(UsageError, match="no calibration samples"):
        quantize_model(text_model, [], QuantizeConfig(scheme="int4-weight"))
    relu = QuantizeConfig(scheme="int8-dynamic", exclude=("n1", "n4"))
    with pytest.raises(UsageError, match="no MatMul or Gemm"):
        quantize_model(text_model, FEEDS, relu)


def test_dynamic_by_hand(make, run_ort) -> None:
    """The range of each run: 0..255 exactly, whatever the samples before were."""
    weight = np.float32(np.arange(-32, 32).reshape(8, 8))
    weight[0] = 127
    text = "t (float[N,8] x, float[8,8] w, float[8] b) => (float[N,8] y) { y = Gemm(x, w, b) }"
    bias = np.arange(8, dtype=np.float32)
    model = make(text, w=weight, b=bias)
    result = quantize_model(model, [], QuantizeConfig(scheme="int8-dynamic", smooth=0)).model
    for top in (255.0, 510.0):
        x = np.float32([[0, top, 16, 2, 4, 100, 50, 200]])
        np.testing.assert_allclose(run_ort(result, {"x": x})[0], x @ weight + bias, rtol=1e-6)


def test_smoothing_tames_outliers(make, run_ort) -> None:
    model = make("t (float[N,64] x, float[64,96] w) => (float[N,96] y) { y = MatMul(x, w) }", w=W)
    size = np.where(np.arange(64) == 7, 60.0, 1.0)
    feeds = [{"x": (R.normal(size=(32, 64)) * size).astype(np.float32)} for _ in range(4)]
    found = []
    for strength in (0, 0.7):
        config = QuantizeConfig(scheme="int8-dynamic", smooth=strength)
        result = quantize_model(model, feeds, config).model
        found.append(_sqnr(run_ort(model, feeds[0])[0], run_ort(result, feeds[0])[0]))
    assert found[1] > found[0] + 3


@pytest.mark.parametrize(("scheme", "least"), [("w4a8", 15), ("w3a8", 9), ("w2a8", 3)])
def test_short_weights_in_integer_kernels(
    network, batches, engine_ops, run_ort, scheme, least
) -> None:
    result = quantize_model(network, batches, QuantizeConfig(scheme=scheme)).model
    ops = engine_ops(result)
    assert ops["QLinearConv"] == 3
    assert not ops.keys() & {"Conv", "Gemm", "BitShift", "BitwiseAnd"}
    feed = batches[0]
    assert _sqnr(run_ort(network, feed)[0], run_ort(result, feed)[0]) > least
    assert not result.functions
    whole = quantize_model(network, batches, QuantizeConfig(scheme=scheme, keep_functions=True))
    assert whole.model.functions
    np.testing.assert_array_equal(run_ort(whole.model, feed)[0], run_ort(result, feed)[0])
