"""Structured pruning: a model without some channels is the model that does not look at them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime.errors import UsageError
from passes.facts import facts
from quant.prune.budget import choose, layers_of
from quant.prune.channels import trace
from quant.prune.shrink import shrink
from quant.prune.structured import prune_channels, score_channels

# Text, shape of x, weights that read channels as (name, axis), layers that can be pruned.
GRAPHS: dict[str, tuple[str, tuple[int, ...], list[tuple[str, int]], int]] = {
    "chain": (
        ("(float[N,3,4,4] x, float[8,3,3,3] w1, float[8] b1, float[5,8,1,1] w2) => (float[N,5,4,4] y)"
        " { a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Sigmoid(a)  y = Conv(r, w2) }"),
        (2, 3, 4, 4), [("w2", 1)], 1,
    ),
    "residual": (
        ("(float[N,3,4,4] x, float[8,3,1,1] w1, float[6,8,1,1] w2, float[8,6,1,1] w3, float[5,8,1,1] w4)"
        " => (float[N,5,4,4] y)"
        " { a = Conv(x, w1)  b = Conv(a, w2)  c = Relu(b)  d = Conv(c, w3)  e = Add(d, a)"
        "   y = Conv(e, w4) }"),
        (2, 3, 4, 4), [("w2", 1), ("w3", 1), ("w4", 1)], 2,
    ),
    "depthwise and a constant along channels": (
        ("(float[N,3,4,4] x, float[8,3,1,1] w1, float[16,1,3,3] w2, float[16] b2, float[16,1,1] k,"
        " float[5,16,1,1] w3) => (float[N,5,4,4] y)"
        " { a = Conv(x, w1)  b = Conv<group=8, pads=[1,1,1,1]>(a, w2, b2)  c = Mul(b, k)  y = Conv(c, w3) }"),
        (2, 3, 4, 4), [("w3", 1)], 1,
    ),
    "groups": (
        ("(float[N,3,4,4] x, float[8,3,1,1] w1, float[12,4,1,1] w2, float[5,12,1,1] w3) => (float[N,5,4,4] y)"
        " { a = Conv(x, w1)  b = Conv<group=2>(a, w2)  y = Conv(b, w3) }"),
        (2, 3, 4, 4), [("w2", 1), ("w3", 1)], 2,
    ),
    "concat and split": (
        ("(float[N,3,4,4] x, float[8,3,1,1] w1, float[4,3,1,1] w2, float[5,6,1,1] w3, float[5,6,1,1] w4)"
        " => (float[N,5,4,4] y)"
        " { a = Conv(x, w1)  b = Conv(x, w2)  c = Concat<axis=1>(a, b)  d, e = Split<axis=1, num_outputs=2>(c)"
        "   f = Conv(d, w3)  g = Conv(e, w4)  y = Add(f, g) }"),
        (2, 3, 4, 4), [("w3", 1), ("w4", 1)], 3,
    ),
    "flattened into a dense layer": (
        ("(float[N,3,4,4] x, float[8,3,3,3] w1, float[128,6] w2, float[6] b2, float[4,6] w3, float[4] b3)"
        " => (float[N,4] y)"
        " { a = Conv<pads=[1,1,1,1]>(x, w1)  f = Flatten(a)  g = Gemm(f, w2, b2)  h = Tanh(g)"
        "   y = Gemm<transB=1>(h, w3, b3) }"),
        (2, 3, 4, 4), [("w2", 0), ("w3", 1)], 2,
    ),
    "batch normalisation and a transposed reshape": (
        ("(float[N,3,2,2] x, float[8,3,1,1] w1, float[8] s, float[8] b, float[8] m, float[8] v,"
        " float[32,4] w2, int64[2] shape) => (float[N,4] y)"
        " { a = Conv(x, w1)  n = BatchNormalization(a, s, b, m, v)  t = Transpose<perm=[0,2,3,1]>(n)"
        "   r = Reshape(t, shape)  y = MatMul(r, w2) }"),
        (2, 3, 2, 2), [("w2", 0)], 1,
    ),
    "heads of attention": (
        ("(float[N,3,4] x, float[4,8] wq, float[4,8] wk, float[4,8] wv, float[8] bv, float[8,4] wo,"
        " int64[4] heads, int64[3] back) => (float[N,3,4] y)"
        " { q = MatMul(x, wq)  k = MatMul(x, wk)  v0 = MatMul(x, wv)  v = Add(v0, bv)"
        "   qh = Reshape(q, heads)  kh = Reshape(k, heads)  vh = Reshape(v, heads)"
        "   qt = Transpose<perm=[0,2,1,3]>(qh)  kt = Transpose<perm=[0,2,3,1]>(kh)  vt = Transpose<perm=[0,2,1,3]>(vh)"
        "   s = MatMul(qt, kt)  p = Softmax(s)  o = MatMul(p, vt)  ot = Transpose<perm=[0,2,1,3]>(o)"
        "   m = Reshape(ot, back)  y = MatMul(m, wo) }"),
        (2, 3, 4), [("wo", 0)], 1,
    ),
    "a gate": (
        ("(float[N,3,4,4] x, float[8,3,1,1] w1, float[4,8,1,1] w2, float[8,4,1,1] w3, float[5,8,1,1] w4)"
        " => (float[N,5,4,4] y)"
        " { a = Conv(x, w1)  g = GlobalAveragePool(a)  h = Conv(g, w2)  i = Conv(h, w3)  j = Sigmoid(i)"
        "   k = Mul(a, j)  y = Conv(k, w4) }"),
        (2, 3, 4, 4), [("w2", 1), ("w3", 1), ("w4", 1)], 2,
    ),
    "units of a GRU that starts with zeros": (
        ("(float[5,N,3] x, float[1,18,3] w, float[1,18,6] r, float[1,36] b, int64[3] state, float nil,"
        " int64 last, float[6,4] w2) => (float[N,4] y)"
        " { h = Expand(nil, state)  a = GRU<hidden_size=6, linear_before_reset=1>(x, w, r, b, , h)"
        "   s = Squeeze(a)  g = Gather<axis=0>(s, last)  y = MatMul(g, w2) }"),
        (5, 2, 3), [("r", 2), ("w2", 0)], 1,
    ),
    "units of an LSTM of two directions, and of the next": (
        ("(float[5,N,3] x, float[2,16,3] w, float[2,16,4] r, float[2,32] b, float[2,12] p, float[2,2,4] h,"
        " float[1,12,8] w2, float[1,12,3] r2, int64[3] flat, int64[1] from, int64[1] to, int64[1] first, float[3,4] w3)"
        " => (float[1,N,4] y)"
        " { a, hn, cn = LSTM<hidden_size=4, direction=\"bidirectional\">(x, w, r, b, , h, , p)"
        "   t = Transpose<perm=[0,2,1,3]>(a)  f = Reshape(t, flat)"
        "   c, dn = LSTM<hidden_size=3>(f, w2, r2)  u = Squeeze(c)  k = Slice(u, from, to, first)  y = MatMul(k, w3) }"),
        (5, 2, 3), [("r", 2), ("r2", 2), ("w2", 2), ("w3", 0)], 2,
    ),
    "heads of fused attention": (
        ("(float[N,3,4] x, float[4,8] wq, float[4,8] wk, float[4,8] wv, float[8,4] wo, int64[4] heads,"
        " int64[3] back) => (float[N,3,4] y)"
        " { q = MatMul(x, wq)  k = MatMul(x, wk)  v = MatMul(x, wv)"
        "   qh = Reshape(q, heads)  kh = Reshape(k, heads)  vh = Reshape(v, heads)"
        "   qt = Transpose<perm=[0,2,1,3]>(qh)  kt = Transpose<perm=[0,2,1,3]>(kh)  vt = Transpose<perm=[0,2,1,3]>(vh)"
        "   o = Attention(qt, kt, vt)  ot = Transpose<perm=[0,2,1,3]>(o)  m = Reshape(ot, back)  y = MatMul(m, wo) }"),
        (2, 3, 4), [("wo", 0)], 1,
    ),
}  # fmt: skip
GIVEN = {
    "state": np.array([1, 2, 6]),
    "nil": np.float32(0),
    "first": np.array([0]),
    "last": np.array(-1),
    "flat": np.array([0, 0, 8]),
    "from": np.array([4]),
    "to": np.array([5]),
    "shape": np.array([-1, 32]),
    "heads": np.array([0, 0, 4, 2]),
    "back": np.array([0, 0, 8]),
}


def build(make: Any, name: str) -> ir.Model:
    """A graph of the table with seeded weights."""
    text = GRAPHS[name][0]
    given = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 20]>\ng {text}').graph.inputs
    r = np.random.default_rng(1)
    constants = {}
    for value in given[1:]:
        shape = tuple(value.shape.numpy())
        values = np.abs(r.normal(size=shape)) if value.name == "v" else r.normal(size=shape)
        constants[value.name] = GIVEN.get(value.name, values.astype(np.float32))
    model = make(f"g {text}", **constants)
    if any(n.op_type == "Attention" for n in model.graph):
        model.opset_imports[""] = 23
    return model


@pytest.mark.parametrize("name", GRAPHS)
def test_without_channels_as_if_nobody_read_them(make, run_ort, name) -> None:
    _, shape, readers, count = GRAPHS[name]
    model = build(make, name)
    channels = trace(model)
    layers = layers_of(channels, {})
    assert len(layers) == count
    r = np.random.default_rng(2)
    removed = {
        c
        for found in layers
        for c in r.permutation(found.classes)[: max(1, len(found.classes) // 2)]
    }
    blind, small = model.clone(), model.clone()
    for weight, axis in readers:
        array = blind.graph.initializers[weight].const_value.numpy().copy()
        gone = np.isin(channels.classes(channels.constants[weight, axis]), list(removed))
        np.moveaxis(array, axis, 0)[gone] = 0
        blind.graph.initializers[weight].const_value = ir.tensor(array, name=weight)
    copied = trace(small)
    shrink(small, copied, removed)
    assert facts(small).parameters < facts(model).parameters
    x = {"x": r.normal(size=shape).astype(np.float32)}
    np.testing.assert_allclose(run_ort(small, x)[0], run_ort(blind, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a = Conv(x, w1)  y = Softmax<axis=1>(a)", "Softmax"),
        ("a = Conv(x, w1)  y = CumSum(a, k)", "CumSum.* has no rule"),
        ("a = Conv(x, w1)  y = Add(a, x)", "meets x, which has no channels"),
        ("a = Conv(x, w1)  y = ReduceMean(a, k)", "sums over them"),
        ("y = Conv(x, w1)", "is an output"),
    ],
)
def test_channels_that_must_stay(make, text, reason) -> None:
    model = make(
        f"g (float[N,4,2,2] x, float[4,4,1,1] w1, int64 k) => (float[N,4,2,2] y) {{ {text} }}",
        w1=np.ones((4, 4, 1, 1), np.float32), k=np.array(1),
    )  # fmt: skip
    channels = trace(model)
    assert layers_of(channels, {}) == []
    with pytest.raises(UsageError, match=f"only 100.0 % is left.*{reason}"):
        choose(model, channels, {}, target=0.5, counted="macs", multiple=1)


def test_the_least_important_go_in_multiples(make) -> None:
    model = build(make, "chain")
    channels = trace(model)
    (layer,) = layers_of(channels, {})
    importance = {c: float(i) for i, c in enumerate(layer.classes)}
    gone = choose(model, channels, importance, target=0.8, counted="parameters", multiple=4)
    assert gone == set(layer.classes[:4])


@pytest.mark.parametrize("importance", ["magnitude", "activation"])
@pytest.mark.parametrize("counted", ["macs", "parameters"])
def test_the_budget_is_kept(network, batches, importance, counted) -> None:
    scores = score_channels(network, [(b, None) for b in batches], None, importance)
    small, _ = prune_channels(network, scores, target=0.5, counted=counted, multiple=1)
    before, after = (getattr(facts(m), counted) for m in (network, small))
    assert 0.35 * before < after <= 0.5 * before


def test_dead_channels_go_first(make, run_ort) -> None:
    """Nothing is lost where half of the channels do nothing."""
    model = build(make, "chain")
    w = model.graph.initializers["w2"].const_value.numpy().copy()
    w[:, ::2] = 0
    model.graph.initializers["w2"].const_value = ir.tensor(w, name="w2")
    torch = pytest.importorskip("torch")

    def loss(module: Any, feeds: Any, labels: Any) -> Any:
        return torch.square(module.run(feeds)["y"]).mean()

    x = {"x": np.random.default_rng(3).normal(size=(4, 3, 4, 4)).astype(np.float32)}
    scores = score_channels(model, [(x, None)], loss, "taylor")
    small, _ = prune_channels(model, scores, target=0.5, counted="macs", multiple=1)
    np.testing.assert_allclose(run_ort(small, x)[0], run_ort(model, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_what_reads_is_fitted_to_what_is_left(make, run_ort, bias) -> None:
    """Channels 4 to 7 are sums of the others: with the readers fitted nothing is lost."""
    r = np.random.default_rng(4)
    w = r.normal(size=(8, 3, 1, 1)).astype(np.float32)
    w[4:] = np.einsum("ij,jchw->ichw", r.normal(size=(4, 3)), w[:3])
    w[3] = 0.7 * w[0] - w[1]
    last = ", b2" if bias else ""
    model = make(
        f"""g (float[N,3,4,4] x, float[8,3,1,1] w1, float[8] b1, float[5,8,3,3] w2, float[5] b2)
        => (float[N,5,4,4] y)
        {{ a = Conv(x, w1, b1)  y = Conv<pads=[1,1,1,1]>(a, w2{last}) }}""",
        w1=w, b1=np.zeros(8, np.float32), w2=r.normal(size=(5, 8, 3, 3)).astype(np.float32),
        b2=r.normal(size=5).astype(np.float32),
    )  # fmt: skip
    feeds = [{"x": r.normal(size=(64, 3, 4, 4)).astype(np.float32)} for _ in range(8)]
    (layer,) = layers_of(trace(model), {})
    scores = {c: float(i) for i, c in enumerate(layer.classes)}  # the first channels go
    options = {"target": 0.55, "counted": "macs", "multiple": 4}
    wanted = run_ort(model, feeds[0])[0]
    lost = []
    for given in ([], feeds):
        small, _ = prune_channels(model, scores, **options, feeds=given)
        assert small.graph.initializers["w2"].const_value.shape == (5, 4, 3, 3)
        lost.append(float(((run_ort(small, feeds[0])[0] - wanted) ** 2).mean() / wanted.var()))
    assert lost[0] > 0.2
    assert lost[1] < 0.01
