"""Training behind batch normalisation: where it begins, what it computes, what is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from quant.train.fake import TRAIN_DOMAIN
from quant.train.module import Trainable
from quant.train.normal import Normalized

torch = pytest.importorskip("torch")

TEXT = """g (float[N,3,8,8] x, float[4,3,3,3] w1, float[4] b1, float[6,2,1,1] w2, float[6,4] w3)
    => (float[N,4,8,8] a, float[N,4] y)
    { a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)  c = Conv<group=2>(r, w2)
      p = GlobalAveragePool(c)  f = Flatten(p)  y = MatMul(f, w3) }"""


@pytest.fixture
def model(make) -> ir.Model:
    r = np.random.default_rng(1)
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (6, 2, 1, 1), "w3": (6, 4)}
    return make(TEXT, **{n: r.normal(size=s).astype(np.float32) for n, s in shapes.items()})


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    r = np.random.default_rng(2)
    return [{"x": (50 * r.normal(size=(16, 3, 8, 8)) + 20).astype(np.float32)} for _ in range(3)]


def spread(values: dict[str, Any]) -> float:
    return max(float(np.abs(v).max()) for v in values.values())


def close(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray], error: float = 1e-5) -> None:
    for name, array in wanted.items():
        assert np.abs(got[name] - array).max() <= error * spread(wanted)


def test_it_begins_where_its_source_is(model, feeds) -> None:
    module, source = Normalized(model, feeds), Trainable(model)
    close(module.values(feeds[0]), source.values(feeds[0]))
    again = module.written()
    close(Trainable(again).values(feeds[0]), source.values(feeds[0]))
    assert [n.op_type for n in again.graph] == [n.op_type for n in model.graph]
    assert set(again.graph.initializers) == {*model.graph.initializers, "c_bias"}
    assert [n.outputs[0].name for n in again.graph] == [n.outputs[0].name for n in model.graph]
    assert TRAIN_DOMAIN not in again.opset_imports


def test_while_it_learns_the_batch_is_the_measure(model, feeds) -> None:
    """By hand: each channel of the first convolution, in double precision."""
    module = Normalized(model, feeds)
    plain = Trainable(model).values(feeds[1])["a"].astype(np.float64)
    before = {n: module.parameters[n].detach().numpy().copy() for n in module.parameters}
    got = module.run(feeds[1], ["a"])["a"].detach().numpy()
    axes = (0, 2, 3)
    mean, deviation = plain.mean(axes), plain.std(axes)
    unit = (plain - mean.reshape(-1, 1, 1)) / deviation.reshape(-1, 1, 1)
    wanted = unit * before["a_scale"].reshape(-1, 1, 1) + before["a_shift"].reshape(-1, 1, 1)
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    bias = model.graph.initializers["b1"].const_value.numpy()
    seen = module.parameters["a_mean"].numpy()
    np.testing.assert_allclose(seen, mean - bias, rtol=1e-4, atol=1e-4)


def test_what_stays_is_the_mean_over_batches(model, feeds) -> None:
    """By hand: convolutions of the first layer, in double precision."""
    module = Normalized(model, feeds[:1])
    module.run(feeds[0])["y"].square().mean().backward()
    with torch.no_grad():
        for name in module.known:
            module.parameters[name] -= 1e-3 * module.parameters[name].grad
    gradients = {n: module.parameters[n].grad.clone() for n in module.known}
    module.settle(feeds)
    weight = module.parameters["w1"].detach().numpy().astype(np.float64)
    batches = [torch.tensor(f["x"].astype(np.float64)) for f in feeds]
    seen = [torch.nn.functional.conv2d(x, torch.tensor(weight), padding=1) for x in batches]
    means = np.mean([y.mean((0, 2, 3)).numpy() for y in seen], 0)
    variances = np.mean([y.var((0, 2, 3)).numpy() for y in seen], 0)
    np.testing.assert_allclose(module.parameters["a_mean"].numpy(), means, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(module.parameters["a_variance"].numpy(), variances, rtol=1e-4)
    assert all(bool((module.parameters[n].grad == g).all()) for n, g in gradients.items())


def test_what_was_learnt_is_in_weights_and_biases(model, feeds, run_ort) -> None:
    module = Normalized(model, feeds)
    optimizer = torch.optim.SGD([module.parameters[n] for n in module.known], lr=1e-4)
    for feed in feeds * 4:
        loss = module.run(feed)["y"].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.settle(feeds)
    wanted, start = module.values(feeds[0]), Trainable(model).values(feeds[0])
    assert np.abs(wanted["y"] - start["y"]).max() > 0.01 * spread(start)
    got = dict(zip(("a", "y"), run_ort(module.written(), feeds[0]), strict=True))
    close(got, wanted)


def test_weights_that_others_read_too_stay_as_they_are(make, feeds) -> None:
    text = """g (float[N,3,8,8] x, float[3,3,1,1] w) => (float[N,3,8,8] y)
        { a = Conv(x, w)  r = Relu(a)  y = Conv(r, w) }"""
    model = make(text, w=np.random.default_rng(3).normal(size=(3, 3, 1, 1)).astype(np.float32))
    module = Normalized(model, feeds)
    assert set(module.parameters) == {"w"}
    close(module.values(feeds[0]), Trainable(model).values(feeds[0]), 0)


def test_a_channel_that_is_constant(make, feeds) -> None:
    """Its variance is 0; it begins as it was and stays finite."""
    w = np.random.default_rng(4).normal(size=(3, 3, 1, 1)).astype(np.float32)
    w[1] = 0
    text = """g (float[N,3,8,8] x, float[3,3,1,1] w, float[3] b) => (float[N,3,8,8] y)
        { y = Conv(x, w, b) }"""
    model = make(text, w=w, b=np.array([1, 2, 3], np.float32))
    module = Normalized(model, feeds)
    close(module.values(feeds[0]), Trainable(model).values(feeds[0]))
    module.run(feeds[0])["y"].square().mean().backward()
    assert all(bool(module.parameters[n].grad.isfinite().all()) for n in module.known)
    close(Trainable(module.written()).values(feeds[0]), Trainable(model).values(feeds[0]), 0.2)
