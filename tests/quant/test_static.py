"""Static int8: exact values, integer kernels, reasons for what stays in float."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant import quantize_model
from quant.config import QuantizeConfig
from quant.static import chosen_linear, emit, prepare

R = np.random.default_rng(17)


def _sqnr(reference: np.ndarray, candidate: np.ndarray) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - candidate) ** 2))


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("per_tensor", [False, True])
def test_engine_runs_integers_only(network, batches, engine_ops, activations, per_tensor) -> None:
    config = QuantizeConfig(activations=activations, per_tensor=per_tensor)
    result = quantize_model(network, batches, config)
    ops = engine_ops(result.model, int8=activations == "int8")
    assert ops["QLinearConv"] == 3
    assert ops["QGemm"] == 1
    assert ops["QLinearAdd"] == 1
    assert ops["QLinearConcat"] == 2
    assert ops["QLinearGlobalAveragePool"] == 2
    assert not ops.keys() & {"Conv", "Gemm", "Add", "Clip", "Relu", "FusedConv", "Concat"}
    assert result.coverage.macs_fraction == 1
    assert result.coverage.quantized_nodes == result.coverage.nodes
    assert not result.refusals


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_activations_of_16_bits(network, batches, run_ort, activations) -> None:
    """Only the weights are rounded noticeably; files say what they need: opset 21."""
    found = {}
    for scheme in ("int8", "w8a16"):
        config = QuantizeConfig(scheme=scheme, activations=activations)
        result = quantize_model(network, batches, config).model
        wanted, got = run_ort(network, batches[0])[0], run_ort(result, batches[0])[0]
        np.testing.assert_allclose(
            Session(result).run(batches[0])["y"], got, rtol=0, atol=1e-5 * np.abs(got).max()
        )
        found[scheme] = _sqnr(wanted, got)
    assert found["w8a16"] > found["int8"] + 5
    assert result.opset_imports[""] == 21
    kinds = {v.dtype.name for n in result.graph for v in n.outputs if n.op_type == "QuantizeLinear"}
    assert kinds == {"UINT16" if activations == "uint8" else "INT16"}


@pytest.mark.parametrize(
    "calibration", ["minmax", "moving-average", "percentile", "entropy", "mse"]
)
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_accuracy_and_agreement_of_runtimes(
    network, batches, run_ort, calibration, activations
) -> None:
    config = QuantizeConfig(calibration=calibration, activations=activations)
    result = quantize_model(network, batches, config).model
    feed = batches[0]
    reference = run_ort(network, feed)[0]
    exact, deployed = run_ort(result, feed)[0], run_ort(result, feed, optimize=True)[0]
    ours = Session(result).run(feed)["y"]
    assert _sqnr(reference, exact) > 25
    assert _sqnr(reference, deployed) > 25
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_interface_stays(network, batches) -> None:
    result = quantize_model(network, batches, QuantizeConfig()).model
    for before, after in (
        (network.graph.inputs, result.graph.inputs),
        (network.graph.outputs, result.graph.outputs),
    ):
        assert [(v.name, v.dtype, str(v.shape)) for v in before] == [
            (v.name, v.dtype, str(v.shape)) for v in after
        ]
    assert result.opset_imports[""] == 20


@pytest.mark.parametrize(("trans", "shape"), [(0, (6, 3)), (1, (3, 6))])
def test_weights_by_hand(make, trans, shape) -> None:
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    weight[0, 0] = 3.0
    bias = np.array([0.5, -1.0, 2.0], np.float32)
    text = f"""t (float[N,6] x, float[{shape[0]},{shape[1]}] w, float[3] b) => (float[N,3] y)
    {{ y = Gemm<transB={trans}>(x, w, b) }}"""
    model = make(text, w=weight, b=bias)
    feeds = [{"x": np.array([[-1.0, 0, 0, 0, 0, 3.0]], np.float32)}]
    config = QuantizeConfig(calibration="minmax", rounding="nearest", bias_correction=False)
    result = quantize_model(model, feeds, config).model
    constants = {n: v.const_value.numpy() for n, v in result.graph.initializers.items()}
    scale = np.abs(weight).max(axis=1 if trans else 0) / 127
    shaped = scale[:, None] if trans else scale
    np.testing.assert_allclose(constants["w_s"], scale, rtol=1e-6)
    np.testing.assert_array_equal(constants["w_q"], np.rint(weight / shaped).astype(np.int8))
    input_scale = 4 / 255
    np.testing.assert_allclose(constants["b_s"], scale * input_scale, rtol=1e-6)
    np.testing.assert_array_equal(constants["b_q"], np.rint(bias / (scale * input_scale)))
    zero_points = [v for v in constants.values() if v.dtype == np.uint8]
    assert [int(z) for z in zero_points] == [round(1 / input_scale)]


CONV = "float[4,3,3,3] w"
W = np.random.default_rng(3).normal(size=(4, 3, 3, 3)).astype(np.float32)
X = [{"x": np.random.default_rng(5).normal(size=(2, 3, 8, 8)).astype(np.float32)}]


@pytest.mark.parametrize(
    ("extra", "body", "node", "reason"),
    [
        (", float[4,3,3,3] v", "a = Conv(x, v)  y = Conv(x, w)  z = Neg(a)", "n0", "graph input"),
        ("", "v = Neg(w)  a = Conv(x, v)  y = Conv(x, w)  z = Neg(a)", "n1", "computed"),
        ("", "y = Conv(x, w)  z = Exp(y)", "n1", "no integer kernel"),
        ("", "z = Flatten(x)  y = Conv(x, w)", "n0", "in float"),
    ],
)
def test_reasons(make, extra, body, node, reason) -> None:
    text = f"t (float[N,3,8,8] x, {CONV}{extra}) => (float[] y, float[] z) {{ {body} }}"
    feeds = [{**f, "v": W} for f in X] if extra else X
    result = quantize_model(make(text, w=W), feeds, QuantizeConfig())
    found = {r.node: r.reason for r in result.refusals}
    assert reason in found[node]
    assert found == {r.node: r.reason for r in result.coverage.fallbacks}


def test_excluded_node_stays_in_float(network, batches) -> None:
    result = quantize_model(network, batches, QuantizeConfig(exclude=("n2",)))
    assert [r.reason for r in result.refusals if r.node == "n2"] == ["excluded by the user"]
    assert result.coverage.macs_fraction < 1
    kept = next(n for n in result.model.graph if n.name == "n2")
    assert kept.inputs[1].name == "w2"
    assert kept.inputs[1].is_initializer()
    with pytest.raises(UsageError, match="no such node"):
        quantize_model(network, batches, QuantizeConfig(exclude=("typo",)))


def test_coverage_counts_at_the_sizes_of_the_data(make) -> None:
    """A layer on a dynamic image weighs what it does on the images of the user."""
    text = f"""t (float[N,3,H,V] x, {CONV}, float[4,100] m) => (float[] y, float[] z)
    {{ y = Conv(x, w)  g = GlobalAveragePool(y)  f = Flatten(g)  z = MatMul(f, m) }}"""
    model = make(text, w=W, m=np.ones((4, 100), np.float32))
    conv, dense = 4 * 6 * 6 * 27, 400
    found = quantize_model(model, X, QuantizeConfig(exclude=("n3",))).coverage
    assert found.macs_fraction == pytest.approx(conv / (conv + dense))


def test_shared_weight_is_quantised_for_both(make, engine_ops, run_ort) -> None:
    text = f"""t (float[N,3,8,8] x, {CONV}) => (float[] y)
    {{ a = Conv(x, w)  b = Neg(x)  c = Conv(b, w)  y = Add(a, c) }}"""
    model = make(text, w=W)
    result = quantize_model(model, X, QuantizeConfig()).model
    assert engine_ops(result)["QLinearConv"] == 2
    assert sum(v.const_value.size == W.size for v in result.graph.initializers.values()) == 1
    # The sum is zero in float; the two branches are quantised alike up to a step of each.
    assert np.abs(run_ort(result, X[0])[0]).max() < 0.2


def test_readers_of_a_weight_with_levels_of_their_own(make, run_ort) -> None:
    """What learning made of a shared weight for each of them is stored for each of them."""
    model = make(
        "t (float[N,4] x, float[4,4] w) => (float[N,4] y, float[N,4] z) { y = MatMul(x, w)  h = Relu(x)  z = MatMul(h, w) }",
        w=np.eye(4, dtype=np.float32),
    )
    feeds = [{"x": R.normal(size=(8, 4)).astype(np.float32)} for _ in range(4)]
    prepared = prepare(model, feeds, QuantizeConfig(calibration="minmax"))

    def refine(_model, _chosen, parameters, linears):
        changed = replace(linears["n2"], levels=-linears["n2"].levels)
        return {**linears, "n2": changed}, parameters

    result = emit(prepared, (), chosen_linear(prepared), refine=refine).model
    x = feeds[0]["x"]
    y, z = run_ort(result, feeds[0])
    np.testing.assert_allclose(y, x, atol=0.05)
    np.testing.assert_allclose(z, -np.maximum(x, 0), atol=0.05)


def test_activation_with_two_readers_is_not_merged(make, run_ort) -> None:
    """The value before the Relu is an output too, so its negative half must survive."""
    text = f"""t (float[N,3,8,8] x, {CONV}) => (float[] y, float[] a)
    {{ a = Conv(x, w)  y = Relu(a) }}"""
    model = make(text, w=W)
    result = quantize_model(model, X, QuantizeConfig()).model
    wanted, got = run_ort(model, X[0]), run_ort(result, X[0])
    assert got[1].min() < -1
    for w, g in zip(wanted, got, strict=True):
        assert _sqnr(w, g) > 30


def test_clip_that_does_not_start_at_zero_stays(make, run_ort) -> None:
    text = f"""t (float[N,3,8,8] x, {CONV}, float lo, float hi) => (float[] y)
    {{ a = Conv(x, w)  y = Clip(a, lo, hi) }}"""
    model = make(text, w=W, lo=np.float32(-0.3), hi=np.float32(0.7))
    result = quantize_model(model, X, QuantizeConfig()).model
    got = run_ort(result, X[0])[0]
    assert "Clip" in {n.op_type for n in result.graph}
    assert got.min() >= np.float32(-0.3)
    assert got.max() <= np.float32(0.7)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_activations(make, run_ort, value) -> None:
    text = f"t (float[N,3,8,8] x, {CONV}) => (float[] y) {{ y = Conv(x, w) }}"
    model = make(text, w=W)
    feeds = [{"x": np.full((1, 3, 8, 8), value, np.float32)}]
    result = quantize_model(model, feeds, QuantizeConfig()).model
    wanted, got = run_ort(model, feeds[0])[0], run_ort(result, feeds[0])[0]
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, wanted, atol=0.02 * max(np.abs(wanted).max(), 1e-3))


def test_zero_channel_keeps_its_bias(make, run_ort) -> None:
    weight = W.copy()
    weight[1] = 0
    bias = np.array([0.1, 7.25, -3.0, 0.0], np.float32)
    text = f"t (float[N,3,8,8] x, {CONV}, float[4] b) => (float[] y) {{ y = Conv(x, w, b) }}"
    model = make(text, w=weight, b=bias)
    got = run_ort(quantize_model(model, X, QuantizeConfig()).model, X[0])[0]
    wanted = run_ort(model, X[0])[0]
    step = (wanted.max() - wanted.min()) / 255
    assert np.abs(got[:, 1] - 7.25).max() <= step


def test_bias_beyond_int32_widens_the_scale(make, run_ort) -> None:
    weight = (W * np.float32(1e-9)).astype(np.float32)
    bias = np.array([100.0, -50.0, 25.0, 1.0], np.float32)
    text = f"t (float[N,3,8,8] x, {CONV}, float[4] b) => (float[] y) {{ y = Conv(x, w, b) }}"
    model = make(text, w=weight, b=bias)
    got = run_ort(quantize_model(model, X, QuantizeConfig()).model, X[0])[0]
    np.testing.assert_allclose(got[0, :, 0, 0], bias, atol=0.6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_calibration_names_the_value(make, bad) -> None:
    text = f"t (float[N,3,8,8] x, {CONV}) => (float[] y) {{ y = Conv(x, w) }}"
    feeds = [{"x": np.full((1, 3, 8, 8), bad, np.float32)}]
    with pytest.raises(UsageError, match="'x' holds NaN"):
        quantize_model(make(text, w=W), feeds, QuantizeConfig())


def test_nothing_to_quantise_and_no_samples(make) -> None:
    relu = make("t (float[2] x) => (float[2] y) { y = Relu(x) }")
    with pytest.raises(UsageError, match="no Conv, Gemm or MatMul"):
        quantize_model(relu, [], QuantizeConfig())
    conv = make(f"t (float[N,3,8,8] x, {CONV}) => (float[] y) {{ y = Conv(x, w) }}", w=W)
    with pytest.raises(UsageError, match="no calibration samples"):
        quantize_model(conv, [], QuantizeConfig())


def test_matmul_of_two_activations(make, engine_ops, run_ort) -> None:
    text = """t (float[N,4,4] x, float[4,4] w) => (float[] y)
    { a = MatMul(x, w)  b = Transpose<perm=[0,2,1]>(a)  c = MatMul(a, b)  d = MatMul(c, w)
      y = Relu(d) }"""
    weight = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
    feeds = [{"x": np.random.default_rng(2).normal(size=(16, 4, 4)).astype(np.float32)}]
    model = make(text, w=weight)
    result = quantize_model(model, feeds, QuantizeConfig(calibration="minmax"))
    assert result.coverage.macs_fraction == 1
    assert "MatMul" not in engine_ops(result.model)
    assert _sqnr(run_ort(model, feeds[0])[0], run_ort(result.model, feeds[0])[0]) > 25
