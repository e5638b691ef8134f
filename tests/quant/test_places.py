"""Layers in unusual places: quantised with small errors, or refused by name with a reason."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from quant import quantize_model
from quant.config import QuantizeConfig

R = np.random.default_rng(21)


def w(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def sqnr(reference, candidate) -> float:
    return 10 * np.log10(np.sum(reference**2) / np.sum((reference - candidate) ** 2))


def holds(model, feeds, config, run_ort, least: float = 25):
    """Quantise and compare as written and as deployed; returns the result."""
    result = quantize_model(model, feeds, config)
    for optimize in (False, True):
        wanted, got = run_ort(model, feeds[0])[0], run_ort(result.model, feeds[0], optimize=optimize)[0]  # fmt: skip
        assert sqnr(wanted, got) > least
    return result


IMAGES = [{"x": R.normal(size=(2, 4, 9, 9)).astype(np.float32)} for _ in range(4)]


@pytest.mark.parametrize("scheme", ["int8", "int8-weight"])
@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ("group=2, dilations=[2,1], pads=[2,1,2,1]", (8, 2, 3, 3)),
        ("group=4, dilations=[2,2], strides=[2,2]", (8, 1, 3, 3)),
        ("group=4, pads=[1,1,1,1]", (12, 1, 3, 3)),
        ('auto_pad="SAME_LOWER", strides=[2,2]', (5, 4, 3, 3)),
    ],
)
def test_convolutions_of_all_kinds(make, run_ort, scheme, attributes, shape) -> None:
    text = f"t (float[N,4,9,9] x, float{list(shape)} w, float[{shape[0]}] b) => (float[] y) {{ y = Conv<{attributes}>(x, w, b) }}"
    model = make(text, w=w(*shape), b=w(shape[0]))
    assert holds(model, IMAGES, QuantizeConfig(scheme=scheme), run_ort).coverage.macs_fraction == 1


@pytest.mark.parametrize(("group", "shape"), [(1, (16, 3, 3, 3)), (4, (16, 2, 3, 3))])
def test_transposed_convolutions(make, run_ort, group, shape) -> None:
    """Their weights can be stored short; no engine here computes them in integers."""
    text = f"""t (float[N,4,9,9] x, float[16,4,1,1] a, float{list(shape)} w) => (float[] y)
    {{ h = Conv(x, a)  y = ConvTranspose<group={group}, strides=[2,2]>(h, w) }}"""
    model = make(text, a=w(16, 4, 1, 1), w=w(*shape))
    stored = holds(model, IMAGES, QuantizeConfig(scheme="int8-weight"), run_ort)
    assert stored.coverage.weights_bytes_fraction == 1
    static = holds(model, IMAGES, QuantizeConfig(), run_ort)
    assert ("n1", "ConvTranspose has no integer kernel") in [(r.node, r.reason) for r in static.refusals]  # fmt: skip


ROWS = [{"x": R.normal(size=(6, 16)).astype(np.float32), "c": np.array(i % 2 == 0)} for i in range(4)]  # fmt: skip
BRANCH = """t (float[N,16] x, bool c, float[16,16] a, float[16,16] w, float[16,8] v) => (float[] y)
{ h = MatMul(x, a)
  k = If (c) <then_branch = th () => (float[N,16] p) { p = MatMul(h, w) }, else_branch = el () => (float[N,16] q) { q = Neg(h) }>
  y = MatMul(k, v) }"""


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weight", "int4-weight"])
def test_a_layer_in_a_branch(make, run_ort, scheme) -> None:
    model = make(BRANCH, a=w(16, 16), w=w(16, 16), v=w(16, 8))
    result = holds(model, ROWS, QuantizeConfig(scheme=scheme), run_ort, 12 if "4" in scheme else 25)
    inner = next(n.name for n in model.graph.all_nodes() if n.inputs and n.inputs[-1] is not None and n.inputs[-1].name == "w")  # fmt: skip
    reasons = {r.node: r.reason for r in result.refusals}
    quantised = "w_q" in " ".join(result.model.graph.initializers)
    assert quantised or "branch" in reasons[inner]


def test_inputs_that_are_scaled_for_a_branch_too(make, run_ort) -> None:
    """AWQ scales a value that a product in a branch reads as well."""
    text = BRANCH.replace("p = MatMul(h, w)", "p = MatMul(x, w)")
    model = make(text, a=w(16, 16), w=w(16, 16), v=w(16, 8))
    config = QuantizeConfig(scheme="int4-weight", algorithm="awq", block_size=16)
    holds(model, ROWS, config, run_ort, 12)


@pytest.mark.parametrize("scheme", ["int8-dynamic", "int8-weight", "int4-weight"])
def test_a_layer_in_a_loop(make, run_ort, scheme) -> None:
    text = """t (float[N,16] x, int64 m, bool go, float[16,16] w, float[16,16] v) => (float[N,16] y)
    { z = MatMul(x, v)
      y = Loop (m, go, z) <body = b (int64 i, bool c, float[N,16] s) => (bool c2, float[N,16] s2) { c2 = Identity(c)  s2 = MatMul(s, w) }> }"""
    model = make(text, m=np.array(3), go=np.array(True), w=w(16, 16), v=w(16, 16))
    feeds = [{"x": f["x"]} for f in ROWS]
    holds(model, feeds, QuantizeConfig(scheme=scheme), run_ort, 10 if "4" in scheme else 25)


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weight"])
@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("LSTM", 4), ("RNN", 1)])
def test_recurrent_layers(make, run_ort, op, gates, scheme) -> None:
    """Weights short; in static int8 the layers around them, and the reason why not they."""
    text = f"""t (float[5,N,8] x, float[2,{gates * 16},8] w, float[2,{gates * 16},16] r, float[16,8] v) => (float[] y)
    {{ h, l = {op}<hidden_size=16, direction="bidirectional">(x, w, r)  y = MatMul(h, v) }}"""
    model = make(text, w=w(2, gates * 16, 8), r=w(2, gates * 16, 16), v=w(16, 8))
    feeds = [{"x": R.normal(size=(5, 3, 8)).astype(np.float32)} for _ in range(4)]
    result = holds(model, feeds, QuantizeConfig(scheme=scheme), run_ort)
    if scheme == "int8":
        assert (op, f"{op} has no integer kernel") in [(r.op, r.reason) for r in result.refusals]
    else:
        assert result.coverage.weights_bytes_fraction == 1


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int4-weight"])
def test_attention_as_one_operator(make, run_ort, scheme) -> None:
    """Opset 23: the projections around it are quantised, the operator stays and is named."""
    text = """t (float[N,6,32] x, float[32,32] q, float[32,32] k, float[32,32] v, float[32,32] o) => (float[] y)
    { a = MatMul(x, q)  b = MatMul(x, k)  c = MatMul(x, v)
      d = Attention<q_num_heads=4, kv_num_heads=4>(a, b, c)  y = MatMul(d, o) }"""
    model = make(text.replace("Attention", "Concat", 0), **{n: w(32, 32) for n in "qkvo"})
    model.graph.opset_imports[""] = 23
    feeds = [{"x": R.normal(size=(2, 6, 32)).astype(np.float32)} for _ in range(4)]
    result = holds(model, feeds, QuantizeConfig(scheme=scheme), run_ort, 14 if "4" in scheme else 25)  # fmt: skip
    if scheme == "int8":
        assert "Attention has no integer kernel" in [r.reason for r in result.refusals]


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-weight"])
def test_one_result_for_all_sizes_of_a_batch(network, batches, run_ort, scheme) -> None:
    result = quantize_model(network, batches, QuantizeConfig(scheme=scheme)).model
    whole = run_ort(result, batches[0])[0]
    parts = [run_ort(result, {"x": x})[0] for x in np.split(batches[0]["x"], [1, 4])]
    if scheme != "int8-dynamic":  # whose ranges are those of the batch
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)
    assert [len(p) for p in parts] == [1, 3, 4]


def test_a_fixed_batch_stays_fixed(make, run_ort) -> None:
    text = "t (float[1,4,9,9] x, float[8,4,3,3] w) => (float[1,8,7,7] y) { y = Conv(x, w) }"
    feeds = [{"x": f["x"][:1]} for f in IMAGES]
    result = holds(make(text, w=w(8, 4, 3, 3)), feeds, QuantizeConfig(), run_ort)
    assert [v.shape for v in result.model.graph.inputs] == [ir.Shape([1, 4, 9, 9])]


def test_weights_stored_outside_the_file(make, run_ort, tmp_path) -> None:
    """As models over 2 GB have them: read one at a time, the source file unchanged."""
    model = make("t (float[N,64] x, float[64,64] w, float[64,8] v) => (float[] y) { h = MatMul(x, w)  y = MatMul(h, v) }", w=w(64, 64), v=w(64, 8))  # fmt: skip
    ir.save(model, tmp_path / "m.onnx", external_data="m.data")
    before = (tmp_path / "m.data").read_bytes()
    loaded = ir.load(tmp_path / "m.onnx")
    feeds = [{"x": R.normal(size=(4, 64)).astype(np.float32)} for _ in range(4)]
    for scheme in ("int8", "int8-weight", "int8-dynamic"):
        result = quantize_model(loaded, feeds, QuantizeConfig(scheme=scheme)).model
        assert sqnr(run_ort(model, feeds[0])[0], run_ort(result, feeds[0])[0]) > 25
    assert (tmp_path / "m.data").read_bytes() == before
