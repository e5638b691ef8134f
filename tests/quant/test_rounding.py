"""Rounding by second moments, and the means of errors: against definitions and brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant import moments, quantize_model
from quant.config import QuantizeConfig
from quant.gptq import round_rows
from quant.moments import Watch, rows_of, weight_of

R = np.random.default_rng(11)


def correlated(rows: int, size: int) -> np.ndarray:
    return R.normal(size=(rows, size)) @ R.normal(size=(size, size)) + R.normal(size=size)


@pytest.mark.parametrize("seed", range(8))
def test_close_to_the_best_rounding(seed) -> None:
    """Every way to round six weights up or down is tried."""
    r = np.random.default_rng(seed)
    x = r.normal(size=(200, 6)) @ r.normal(size=(6, 6))
    w, second = r.normal(size=(1, 1, 6)), (x.T @ x / 200)[None]
    steps = np.full((1, 1, 1), 0.4)

    def loss(levels) -> float:
        return float(np.mean((x @ (w[0, 0] - 0.4 * levels)) ** 2))

    below = np.floor(w[0, 0] / 0.4)
    best = min(loss(below + np.array(ups)) for ups in product((0, 1), repeat=6))
    nearest, found = loss(np.rint(w[0, 0] / 0.4)), loss(round_rows(w, second, steps, -8, 7)[0, 0])
    assert found <= nearest
    assert found <= max(3 * best, 0.5 * nearest)


def test_much_better_than_nearest_on_correlated_inputs() -> None:
    """As in real networks, a few directions hold most of what the inputs are."""
    x = R.normal(size=(2000, 12)) @ R.normal(size=(12, 96)) + 0.3 * R.normal(size=(2000, 96))
    w = R.normal(size=(1, 32, 96))
    steps = np.abs(w).max(axis=2, keepdims=True) / 7
    errors = [
        np.mean((x @ (w - levels * steps)[0].T) ** 2)
        for levels in (np.rint(w / steps), round_rows(w, (x.T @ x / 2000)[None], steps, -7, 7))
    ]
    assert errors[1] < 0.4 * errors[0]


def test_limits_and_silent_inputs() -> None:
    """Levels stay inside the format; inputs that are always zero leave rounding to nearest."""
    w = R.normal(size=(2, 3, 5)) * 3
    second = np.stack([np.zeros((5, 5)), np.cov(correlated(50, 5).T)])
    levels = round_rows(w, second, np.full((2, 1, 1), 0.1), -8, 7)
    assert levels.min() >= -8
    assert levels.max() <= 7
    np.testing.assert_array_equal(levels[0], np.clip(np.rint(w[0] / 0.1), -8, 7))


@pytest.mark.parametrize(
    "attributes",
    ["", "group = 2, pads = [1, 0, 2, 1]", "group = 4, strides = [2, 1]", "dilations = [2, 1]", 'auto_pad = "SAME_UPPER"'],
)  # fmt: skip
def test_moments_of_a_convolution(make, attributes) -> None:
    """w' E[x x'] w is the mean square of what the convolution computes, w' E[x] its mean."""
    group = 2 if "group = 2" in attributes else 4 if "group = 4" in attributes else 1
    w = R.normal(size=(8, 4 // group, 3, 2)).astype(np.float32)
    x = R.normal(loc=0.5, size=(2, 4, 6, 5)).astype(np.float32)
    text = f"t (float[2,4,6,5] x, float[8,{4 // group},3,2] w) => (float[] y) {{ y = Conv<{attributes}>(x, w) }}"
    model = make(text.replace("<>", ""), w=w)
    y = Session(model).run({"x": x})["y"].astype(np.float64)
    watch = Watch(model.graph)
    watch.see("x", x)
    met, rows = watch.moments["w"], rows_of(model.graph[0], w)
    assert met.rows == y[:, 0].size
    # With few rows the moments are drawn towards the identity, by this much of their power.
    share = met.size / met.rows
    power = np.trace(met.second, axis1=1, axis2=2) / met.size / (1 + share)
    exact = met.second - share * power[:, None, None] * np.eye(met.size)
    square = np.einsum("goj,gjk,gok->go", rows, exact, rows).reshape(-1)
    np.testing.assert_allclose(square, (y**2).mean(axis=(0, 2, 3)), rtol=1e-5)
    mean = np.einsum("gok,gk->go", rows, met.mean).reshape(-1)
    np.testing.assert_allclose(mean, y.mean(axis=(0, 2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "node", ["Conv<group = 2>(x, w)", "Gemm<transB = 1>(x, w)", "MatMul(x, w)"]
)
def test_rows_and_back(make, node) -> None:
    shape = (4, 3, 2, 2) if "Conv" in node else (4, 3)
    w = R.normal(size=shape).astype(np.float32)
    model = make(f"t (float[] x, float{list(shape)} w) => (float[] y) {{ y = {node} }}", w=w)
    np.testing.assert_array_equal(weight_of(model.graph[0], rows_of(model.graph[0], w), shape), w)


NET = """net (float[N,8] x, float[8,16] w, float[16] b) => (float[N,16] y) { y = Gemm(x, w, b) }"""


def biased(make):
    """One large weight makes the steps coarse; inputs with a mean make the errors a bias."""
    w = R.normal(size=(8, 16)).astype(np.float32)
    w[0] = 40
    model = make(NET, w=w, b=R.normal(size=16).astype(np.float32))
    return model, [{"x": R.normal(loc=3, size=(64, 8)).astype(np.float32)} for _ in range(8)]


def test_the_mean_error_goes_into_the_bias(make) -> None:
    model, feeds = biased(make)
    x = np.concatenate([f["x"] for f in feeds])
    wanted = Session(model).run({"x": x})["y"]
    means = {}
    for corrected in (False, True):
        config = QuantizeConfig(rounding="nearest", bias_correction=corrected)
        got = Session(quantize_model(model, feeds, config).model).run({"x": x})["y"]
        means[corrected] = np.abs((got - wanted).mean(axis=0)).mean()
    assert means[True] < 0.1 * means[False]


def test_a_convolution_without_a_bias_gets_one(make) -> None:
    w = R.normal(size=(4, 3, 3, 3)).astype(np.float32)
    model = make("t (float[N,3,8,8] x, float[4,3,3,3] w) => (float[] y) { y = Conv(x, w) }", w=w)
    feeds = [{"x": R.normal(loc=1, size=(2, 3, 8, 8)).astype(np.float32)}]
    for corrected, inputs in ((True, 3), (False, 2)):
        result = quantize_model(model, feeds, QuantizeConfig(bias_correction=corrected)).model
        assert [len(n.inputs) for n in result.graph if n.op_type == "Conv"] == [inputs]


def test_moments_that_do_not_fit_are_named(make, monkeypatch) -> None:
    model, feeds = biased(make)
    monkeypatch.setattr(moments, "LARGEST_BYTES", 8)
    result = quantize_model(model, feeds, QuantizeConfig())
    assert len(result.notes) == 1
    assert "'n0'" in result.notes[0]
    monkeypatch.undo()
    assert not quantize_model(model, feeds, QuantizeConfig()).notes


def test_a_weight_that_two_layouts_share(make) -> None:
    w = R.normal(size=(8, 8)).astype(np.float32)
    text = """t (float[N,8] x, float[8,8] w) => (float[] y, float[] z)
    { y = Gemm<transB = 1>(x, w)  z = MatMul(x, w) }"""
    model = make(text, w=w)
    x = R.normal(size=(32, 8)).astype(np.float32)
    result = quantize_model(model, [{"x": x}], QuantizeConfig()).model
    got, wanted = Session(result).run({"x": x}), Session(model).run({"x": x})
    for name in ("y", "z"):
        assert np.abs(got[name] - wanted[name]).max() < 0.03 * np.abs(wanted[name]).max()


def test_no_samples_is_still_an_error(make) -> None:
    with pytest.raises(UsageError, match="no calibration samples"):
        quantize_model(biased(make)[0], [], QuantizeConfig())
