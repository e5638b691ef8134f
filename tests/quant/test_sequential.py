"""Rounding layer by layer: what the layers before have lost is made up for, on unseen samples."""

from __future__ import annotations

import numpy as np
import pytest

from infer_runtime.errors import UsageError
from quant import quantize_model, simulate
from quant.config import QuantizeConfig

R = np.random.default_rng(31)
CONVS = """t (float[N,3,10,10] x, float[8,3,3,3] a, float[8] s, float[8,8,3,3] b, float[8,8,3,3] c,
  float[8] u, float[4,8,1,1] d) => (float[N,4,4,4] y)
{ p = Conv(x, a, s)  q = Relu(p)  r = Conv(q, b)  e = Relu(r)
  f = Conv<pads=[1,1,1,1]>(e, c, u)  g = Relu(f)  h = Conv(g, d)  y = MaxPool<kernel_shape=[3,3]>(h) }"""


def w(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    shapes = {"a": (8, 3, 3, 3), "s": (8,), "b": (8, 8, 3, 3), "c": (8, 8, 3, 3), "u": (8,), "d": (4, 8, 1, 1)}  # fmt: skip
    return {name: w(*shape) for name, shape in shapes.items()}


def images(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    noise = np.random.default_rng(seed).normal(size=(count, 8, 3, 12, 12)).astype(np.float32)
    return [
        {"x": sum(x[..., i : i + 10, j : j + 10] for i in range(3) for j in range(3)) / 3}
        for x in noise
    ]


def sqnr(reference, candidate) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - candidate) ** 2))


def outcome(model, run_ort, **options) -> float:
    result = quantize_model(model, images(16, 0), QuantizeConfig(**options)).model
    feeds = images(8, 1)
    return sqnr(*(np.concatenate([run_ort(m, f)[0] for f in feeds]) for m in (model, result)))


@pytest.mark.parametrize(("scheme", "gain"), [("w3a8", 1.5), ("w4a8", 1.0), ("w2a8", 1.5)])
def test_short_weights_gain(make, weights, run_ort, scheme, gain) -> None:
    """Over GPTQ with the moments of the float model, and it is the default."""
    model = make(CONVS, **weights)
    alone = outcome(model, run_ort, scheme=scheme, rounding="gptq")
    assert outcome(model, run_ort, scheme=scheme) > alone + gain


def test_a_product_makes_up_for_the_one_before(make) -> None:
    """The second of two MatMuls comes near the least squares solution behind the first."""
    model = make(
        "t (float[N,16] x, float[16,12] a, float[12,6] b) => (float[N,6] y) { h = MatMul(x, a)  y = MatMul(h, b) }",
        a=w(16, 12), b=w(12, 6),
    )  # fmt: skip
    x = R.normal(size=(512, 16)).astype(np.float32)
    feeds = [{"x": x[i : i + 32]} for i in range(0, 512, 32)]
    config = QuantizeConfig(scheme="w2a8", rounding="sequential", activations="int8")
    from infer_runtime import Session

    outputs = {}
    for rounding in ("sequential", "gptq"):
        config = QuantizeConfig(scheme="w2a8", rounding=rounding)
        result = Session(quantize_model(model, feeds, config).model)
        outputs[rounding] = result.run({"x": x})["y"]
    wanted = Session(model).run({"x": x})["y"]
    assert sqnr(wanted, outputs["sequential"]) > sqnr(wanted, outputs["gptq"]) + 0.3


def _levels(model) -> dict[str, int]:
    """The largest level of each weight that is stored in bytes."""
    return {
        name: int(np.abs(value.const_value.numpy().astype(int)).max())
        for name, value in model.graph.initializers.items()
        if name.endswith("_q") and value.const_value.numpy().ndim > 1
    }


def test_small_ends_keep_8_bits(make, run_ort) -> None:
    """The first and the last product, if they are a small part of the weights; others do not."""
    text = """t (float[N,4] x, float[4,40] a, float[40,40] b, float[40,4] c) => (float[N,4] y)
    { h = MatMul(x, a)  i = Relu(h)  j = MatMul(i, b)  k = Relu(j)  y = MatMul(k, c) }"""
    model = make(text, a=w(4, 40), b=w(40, 40), c=w(40, 4))
    feeds = [{"x": R.normal(size=(8, 4)).astype(np.float32)} for _ in range(8)]
    found = quantize_model(model, feeds, QuantizeConfig(scheme="w4a8")).model
    assert set(_levels(found)) == {"a_q", "c_q"}
    assert min(_levels(found).values()) > 7
    half = make(text.replace("40,40", "40,8").replace("40,4]", "8,4]"), a=w(4, 40), b=w(40, 8), c=w(8, 4))  # fmt: skip
    assert set(_levels(quantize_model(half, feeds, QuantizeConfig(scheme="w4a8")).model)) == {"c_q"}


def test_a_weight_of_two_layers_is_stored_once(make, run_ort) -> None:
    """It cannot make up for both: it keeps what GPTQ gave it, and both read it."""
    text = """t (float[N,12] x, float[12,12] a, float[12,12] b) => (float[N,12] y)
    { h = MatMul(x, a)  i = Relu(h)  j = MatMul(i, a)  k = Relu(j)  y = MatMul(k, b) }"""
    model = make(text, a=w(12, 12), b=w(12, 12))
    feeds = [{"x": R.normal(size=(16, 12)).astype(np.float32)} for _ in range(8)]
    result = quantize_model(model, feeds, QuantizeConfig(rounding="sequential")).model
    wanted, got = run_ort(model, feeds[0])[0], run_ort(result, feeds[0])[0]
    assert sqnr(wanted, got) > 30


def test_one_scale_and_no_biases(make, weights, run_ort) -> None:
    model = make(CONVS, **weights)
    options = {"scheme": "w4a8", "per_tensor": True, "bias_correction": False}
    assert outcome(model, run_ort, **options) > outcome(model, run_ort, rounding="gptq", **options)


def test_streams_cannot_be_read_twice(make, weights) -> None:
    with pytest.raises(UsageError, match="more than once"):
        quantize_model(make(CONVS, **weights), iter(images(4, 0)), QuantizeConfig(scheme="w4a8"))


def test_as_many_batches_as_there_is_room_for(make, weights, monkeypatch) -> None:
    """Counted where most values wait for later layers, once in float and once rounded."""
    from quant.selection import select

    model = make(CONVS, **weights)
    order, feeds = simulate.segments(model, select(model, ()), 1), images(40, 0)
    largest = 8 * 8 * 8 * 8 * 4  # the output of the first convolution
    monkeypatch.setattr(simulate, "HELD_BYTES", 2 * 20 * largest)
    assert len(simulate.fitting(feeds, order)) == 20
    monkeypatch.setattr(simulate, "HELD_BYTES", 1)
    assert len(simulate.fitting(feeds, order)) == simulate.FEWEST_BATCHES
    assert simulate.fitting([], order) == []
