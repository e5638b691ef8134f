"""Winograd's algorithm against sums in float64, and when the cost model takes it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import chained, with_constants

from infer_native import emit_model, select
from infer_native.isa import ISAS, runs_here
from infer_native.kernels import winograd

HERE = [name for name, isa in ISAS.items() if isa.lanes and runs_here(isa)]
MODEL = """<ir_version: 10, opset_import: ["": 20]>
t (float[2,40,11,14] x, float[24,40,3,3] w, float[24] b, float[24,40,3,3] v)
  => (float[2,24,12,14] y, float[2,24,12,14] z)
{ a = Conv<pads = [2, 1, 1, 1]>(x, w, b)  y = Relu(a)
  c = Conv<pads = [1, 1, 2, 1]>(x, v)  s = Add(c, y)  z = Sigmoid(s) }"""


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("size", [2, 4])
def test_tiles_at_every_border(native, monkeypatch, size: int, isa: str) -> None:
    """Several samples, chunks of two lengths, residuals, odd channels, uneven padding."""
    monkeypatch.setattr(select, "winograd_size", lambda *_: size)
    monkeypatch.setattr(winograd, "SECOND_CACHE", 150_000)
    rng = np.random.default_rng(3)
    model = with_constants(MODEL, 1, 0.1)
    x = (rng.normal(size=(2, 40, 11, 14)) + 0.5).astype(np.float32)
    assert f"wg_in{size}" in emit_model(model, isa=isa).source
    got = native(model, {"x": x}, isa)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    for name, wanted in zip(("y", "z"), session.run(None, {"x": x}), strict=True):
        atol = 3e-6 * float(np.abs(wanted).max())
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("size", [2, 4])
def test_the_points_give_the_filter_back(size: int) -> None:
    """One tile in float64, from the expressions and the matrix that the emitter writes."""
    rng = np.random.default_rng(0)
    n = size + 2
    image, filter_ = rng.normal(size=(n, n)), rng.normal(size=(3, 3))
    to_points, from_points = (
        np.array([_row(e, n) for e in lines])
        for lines in (winograd._to_points(size, "d"), winograd._from_points(size, "d"))
    )
    g = winograd._filter_matrix(size)
    products = (to_points @ image @ to_points.T) * (g @ filter_ @ g.T)
    got = from_points @ products @ from_points.T
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3))
    np.testing.assert_allclose(got, (windows * filter_).sum((2, 3)), atol=1e-13)


def _row(expression: str, count: int) -> list[float]:
    """The coefficients of a linear expression in d0, d1, ..."""
    text = expression.replace("f ", " ").replace("f)", ")")
    units = np.eye(count)
    return [eval(text, {f"d{i}": u[i] for i in range(count)}) for u in units]


def test_sixteen_layers_stay_far_within_the_tolerance(native) -> None:
    """Against float64; 1e-4 is what `verify` allows, and direct sums have about 1e-6."""
    model, reference = chained(16, 64, 14)
    assert "wg_in4" in emit_model(model, isa=HERE[-1]).source
    x = np.random.default_rng(1).normal(size=(1, 64, 14, 14)).astype(np.float32)
    (got,) = native(model, {"x": x}, HERE[-1]).values()
    wanted = reference(x.astype(np.float64))
    assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("channels", "size", "expected"), [(64, 56, 4), (256, 14, 4), (512, 7, 2), (4, 30, 0)]
)
def test_the_cost_model_weighs_products_against_weights(
    channels: int, size: int, expected: int
) -> None:
    model, _ = chained(1, channels, size)
    source = emit_model(model, isa="avx512").source
    assert [s for s in (2, 4) if f"wg_in{s}" in source] == ([expected] if expected else [])


def test_strides_and_dilations_keep_the_direct_sum() -> None:
    for attribute in ({"strides": [2, 2]}, {"dilations": [2, 2]}):
        model, _ = chained(1, 64, 28, **attribute)
        assert "wg_in" not in emit_model(model, isa="avx512").source
