"""Binary layers: which ones, what training sees of them, and that the file computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant.binarize.choose import choose
from quant.binarize.config import BinarizeConfig

torch = pytest.importorskip("torch")

from quant.binarize.emit import emit  # noqa: E402 - they need torch
from quant.binarize.simulate import SHARE, Simulation  # noqa: E402
from quant.train.binary import bits_torch, signed, signed_torch, signs  # noqa: E402

TEXT = """g (float[N,5,9,8] x, float[10,5,3,3] w1, float[10] b1, float[12,5,3,3] w2, float[12] b2,
    float[12,12,3,3] w3, float[12,50] w4, float[20,50] w5, float[20] b5, float[20,4] w6) => (float[N,4] y)
    { a = Conv<pads=[1,1,1,1]>(x, w1, b1)  ar = Relu(a)
      b = Conv<pads=[2,1,1,2], group=2, strides=[2,2], dilations=[2,1]>(ar, w2, b2)
      c = Conv<pads=[1,1,1,1]>(b, w3)  d = GlobalAveragePool(c)  e = Flatten(d)
      f = MatMul(e, w4)  h = Gemm<transB=1>(f, w5, b5)  y = MatMul(h, w6) }"""
SHAPES = {
    "w1": (10, 5, 3, 3), "b1": (10,), "w2": (12, 5, 3, 3), "b2": (12,), "w3": (12, 12, 3, 3),
    "w4": (12, 50), "w5": (20, 50), "b5": (20,), "w6": (20, 4),
}  # fmt: skip
CONFIG = {"min_products": 12}


@pytest.fixture
def source(make) -> ir.Model:
    r = np.random.default_rng(2)
    return make(TEXT, **{
        n: (r.normal(size=s) / np.sqrt(np.prod(s[1:]))).astype(np.float32)
        for n, s in SHAPES.items()
    })  # fmt: skip


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    r = np.random.default_rng(3)
    return [{"x": (r.normal(size=(6, 5, 9, 8)) + 0.2).astype(np.float32)} for _ in range(2)]


@pytest.mark.parametrize("weights", ["binary", "ternary"])
@pytest.mark.parametrize("activations", ["none", "binary"])
def test_the_file_computes_what_was_trained(source, feeds, run_ort, weights, activations) -> None:
    config = BinarizeConfig(weights=weights, activations=activations, **CONFIG)
    simulation = Simulation(source, config, feeds, 1)
    simulation.finish()
    assert [layer.node for layer in simulation.layers] == ["n2", "n3", "n6", "n7"]
    emitted = emit(simulation)
    calls = [n.op_type for n in emitted.model.graph if n.domain == "infertool"]
    form = {"binary": "Binary", "ternary": "Ternary"}[weights]
    if activations == "binary" and weights == "binary":
        assert calls == ["XnorConv", "XnorConv", "XnorGemm", "XnorGemm"]
    else:
        assert [c for c in calls if c != "Sign"] == [f"{form}Conv"] * 2 + [f"{form}Gemm"] * 2
        assert calls.count("Sign") == (4 if activations == "binary" else 0)
    wanted = simulation.module.values(feeds[1])["y"]
    (found,) = run_ort(emitted.model, feeds[1])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    numpy = Session(emitted.model).run(feeds[1])["y"]
    np.testing.assert_allclose(numpy, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(wanted - run_ort(source, feeds[1])[0]).max() > 0.05  # it is another model
    assert {i.name for i in emitted.model.graph.inputs} == {"x"}


def test_before_the_first_step_it_is_the_source(source, feeds, run_ort) -> None:
    (wanted,) = run_ort(source, feeds[0])
    weights = Simulation(source, BinarizeConfig(**CONFIG), feeds, 10)
    np.testing.assert_allclose(weights.module.values(feeds[0])["y"], wanted, rtol=1e-4, atol=1e-5)
    for step in range(10):
        assert float(weights.module.parameters[SHARE]) == pytest.approx(step / 10, abs=1e-6)
        weights.project()
    assert float(weights.module.parameters[SHARE]) == 1


def test_inside_of_padding_bits_begin_as_the_source_too(make, feeds, run_ort) -> None:
    """A bit's unit and origin are in weights and bias; padding is the origin, no longer 0."""
    r = np.random.default_rng(2)
    text = """g (float[N,5,9,8] x, float[6,5,3,3] a, float[6,6,3,3] b, float[4,6,3,3] c) => (float[N,4,3,2] y)
        { t = Conv(x, a)  u = Conv(t, b)  y = Conv(u, c) }"""
    arrays = {
        n: r.normal(size=s).astype(np.float32)
        for n, s in {"a": (6, 5, 3, 3), "b": (6, 6, 3, 3), "c": (4, 6, 3, 3)}.items()
    }
    model = make(text, **arrays)
    (wanted,) = run_ort(model, feeds[0])
    simulation = Simulation(model, BinarizeConfig(activations="binary"), feeds, 10)
    found = simulation.module.values(feeds[0])["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("weights", ["binary", "ternary"])
def test_all_that_is_learned_has_a_gradient(source, feeds, weights) -> None:
    config = BinarizeConfig(weights=weights, activations="binary", **CONFIG)
    simulation = Simulation(source, config, feeds, 2)
    simulation.project()  # half way: both forms take part
    loss = (simulation.module.run(feeds[0])["y"] ** 2).sum()
    loss.backward()
    layer = simulation.layers[1]
    for name in (layer.weight, layer.scale, layer.bias, layer.shift, layer.gain):
        assert name in simulation.module.known
        assert simulation.module.parameters[name].grad.abs().max() > 0
    assert simulation.module.parameters[SHARE].grad is None


def test_gradients_by_hand() -> None:
    w = torch.tensor([[0.5, -0.2, 0.0]], requires_grad=True)
    scale = torch.tensor([[2.0]], requires_grad=True)
    out = signed_torch(w, scale, torch.tensor(1.0))
    assert out.tolist() == [[2.0, -2.0, 2.0]]
    (out * torch.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    assert w.grad.tolist() == [[1.0, 10.0, 100.0]]  # unchanged
    assert scale.grad.tolist() == [[1.0 - 10.0 + 100.0]]
    x = torch.tensor([[0.9, 1.1, 2.9, 3.1, -9.0]], requires_grad=True)
    shift, width = torch.tensor([1.0] * 5, requires_grad=True), torch.tensor([1.0] * 5)
    out = bits_torch(x, shift, width, torch.tensor(1.0), axis=1)
    assert out.tolist() == [[-1, 1, 1, 1, -1]]
    out.sum().backward()
    assert x.grad.tolist() == [[1, 1, 0, 0, 0]]  # a width to each side
    assert shift.grad.tolist() == [-1, -1, 0, 0, 0]


@pytest.mark.parametrize("ternary", [0, 1])
def test_torch_and_numpy_find_the_same_levels(ternary) -> None:
    w = np.random.default_rng(1).normal(size=(7, 5, 3, 3)).astype(np.float32)
    w[0, 0, 0] = [0.0, -0.0, 1e-9]
    levels = signs(torch.tensor(w), ternary=ternary).numpy()
    np.testing.assert_array_equal(levels, signs(w, ternary=ternary))
    assert {*np.unique(levels)} == ({-1, 0, 1} if ternary else {-1, 1})
    scale = np.full((7, 1, 1, 1), 0.5, np.float32)
    hard = signed(w, scale, np.float32(1), ternary=ternary)
    np.testing.assert_array_equal(hard, 0.5 * levels)


def refused(model: ir.Model, **options: Any) -> dict[str, str]:
    return {r.node: r.reason for r in choose(model, BinarizeConfig(**options))[1]}


def test_what_stays_in_float_and_why(source, make) -> None:
    found = refused(source, **CONFIG)
    assert set(found) == {"n0", "n8"}
    assert "first or the last layer" in found["n0"]
    assert not refused(source, ends=True, **CONFIG)
    assert refused(source, exclude=("n3",), **CONFIG)["n3"] == "excluded by the user"
    assert "sums 45 products" in refused(source)["n2"]
    r = np.random.default_rng(2)
    text = """g (float[N,8,9,9] x, float[8,8,3,3] dynamic, float[8,1,3,3] deep, float[8,8,3,3] shared, float[8,8,3,3] w) => (float[N,8,9,9] y)
        { a = Conv<pads=[1,1,1,1]>(x, w)  b = Conv<pads=[1,1,1,1]>(a, dynamic)
          c = Conv<pads=[1,1,1,1], group=8>(b, deep)  d = Conv<pads=[1,1,1,1]>(c, shared)
          e = Conv<auto_pad="SAME_UPPER">(d, shared)  y = Conv<pads=[1,1,1,1]>(e, w2) }"""
    text = text.replace("float[8,8,3,3] w)", "float[8,8,3,3] w, float[8,8,3,3] w2)")
    arrays = {n: r.normal(size=(8, 8, 3, 3)).astype(np.float32) for n in ("shared", "w", "w2")}
    model = make(text, deep=r.normal(size=(8, 1, 3, 3)).astype(np.float32), **arrays)
    found = refused(model, ends=True)
    assert found["n1"] == "its weight dynamic is a graph input"
    assert "sums 9 products" in found["n2"]
    assert found["n3"] == found["n4"] == "its weight shared is shared by 2 inputs"


def test_nothing_to_do_is_an_error(source) -> None:
    with pytest.raises(UsageError, match="no layer of this model can become binary: node n0"):
        choose(source, BinarizeConfig(min_products=1000))
    with pytest.raises(UsageError, match="--exclude 'no'"):
        choose(source, BinarizeConfig(exclude=("no",)))


@pytest.mark.parametrize("activations", ["none", "binary"])
@pytest.mark.parametrize("weights", ["binary", "ternary"])
def test_what_was_learnt_behind_normalisation_stays(
    source, feeds, run_ort, weights, activations
) -> None:
    """Folding changes nothing; a factor below zero turns the signs round."""
    config = BinarizeConfig(weights=weights, activations=activations, **CONFIG)
    simulation = Simulation(source, config, feeds, 2, batch_norm=True)
    module = simulation.module
    plain = Simulation(source, config, feeds, 2).module.values(feeds[0])["y"]
    np.testing.assert_allclose(module.values(feeds[0])["y"], plain, rtol=1e-3, atol=1e-4)
    simulation.project()
    with torch.no_grad():
        module.parameters["b_scale"][::2] *= -1.5
    module.run(feeds[1])  # moves the statistics
    half = module.values(feeds[0])["y"]
    assert np.abs(half - plain).max() > 0.01 * np.abs(plain).max()
    module.parameters["infertool.share"].fill_(1)
    whole = module.values(feeds[0])["y"]
    simulation.finish()
    assert simulation.module is not module
    again = simulation.module.values(feeds[0])["y"]
    # Scales are kept in half precision, and are other numbers now.
    assert np.abs(again - whole).max() <= 2e-3 * np.abs(whole).max()
    emitted = emit(simulation)
    wanted = simulation.module.values(feeds[1])["y"]
    (found,) = run_ort(emitted.model, feeds[1])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert not [n for n in emitted.model.graph.initializers if "_mean" in n or "_variance" in n]
