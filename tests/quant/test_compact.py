"""Files that do not store what engines compute when they load them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from quant.config import QuantizeConfig
from quant.formats import INT4
from quant.linear import quantize_linear
from quant.search.choice import Choice
from quant.search.space import explore, uniform
from quant.static import emit, prepare

CONFIG = QuantizeConfig(scheme="auto")


@pytest.fixture
def wide(make):
    """Layers of at least 64 channels: what they share is worth a node."""
    r = np.random.default_rng(3)
    text = """net (float[N,3,8,8] x, float[64,3,3,3] w1, float[64] b1, float[96,64,1,1] w2, float[96] b2,
        float[96,10] w3, float[10] b3) => (float[N,10] y)
    { a = Conv<pads=[1,1,1,1]>(x, w1, b1)  ar = Relu(a)  b = Conv(ar, w2, b2)  br = Relu(b)
      g = GlobalAveragePool(br)  f = Flatten(g)  y = Gemm(f, w3, b3) }"""
    shapes = {"w1": (64, 3, 3, 3), "w2": (96, 64, 1, 1), "w3": (96, 10)}
    weights = {n: (r.normal(size=s) / 5).astype(np.float32) for n, s in shapes.items()}
    biases = {
        n: r.normal(size=c).astype(np.float32) for n, c in (("b1", 64), ("b2", 96), ("b3", 10))
    }
    return make(text, **weights, **biases)


def _size(model: ir.Model) -> int:
    return len(ir.to_proto(model).SerializeToString())


def test_compact_is_the_same_model(wide, batches, run_ort) -> None:
    """The same bits at fewer bytes, and integer kernels still."""
    prepared = prepare(wide, batches, CONFIG)

    def linear(node, scale):
        return quantize_linear(node, scale, CONFIG, prepared.watch.moments, INT4, half_scales=True)

    plain = emit(prepared, (), linear).model
    compact = emit(prepared, (), linear, compact=True).model
    for batch in batches[:2]:
        assert np.array_equal(run_ort(plain, batch)[0], run_ort(compact, batch)[0])
        assert np.array_equal(Session(plain).run(batch)["y"], Session(compact).run(batch)["y"])
    # Scales of biases, and half of those of weights, of 160 channels; a node takes some of it.
    assert _size(plain) - _size(compact) > 160 * 6 - 700


@pytest.mark.parametrize("bits", [8, 5, 2])
def test_integer_kernels_run(wide, batches, engine_ops, bits) -> None:
    space = explore(wide, batches, CONFIG)
    ops = engine_ops(space.emit(uniform(space, "int8", bits)).model)
    assert ops["QLinearConv"] == 2
    assert ops["QGemm"] == 1
    assert not ops.keys() & {"Conv", "Gemm", "MatMul", "BitShift", "Cast"}


def test_small_scales_keep_their_digits(wide, batches) -> None:
    """Scales below the normal numbers of float16 stay in float32."""
    tiny = wide.clone()
    for name in ("w1", "b1"):
        value = tiny.graph.initializers[name]
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1e-6), name=name)
    space = explore(tiny, batches, CONFIG)
    node = next(n for n in space.prepared.source.graph if n.op_type == "Conv")
    found = space.linear(node, space.input_scales[node.name], 4)
    assert found.scale.max() < np.finfo(np.float16).smallest_normal
    assert np.any(found.scale.astype(np.float16) != found.scale)
    rows = found.levels.reshape(64, -1)
    assert np.abs(rows).max(axis=1).min() >= 4  # every channel uses its levels


def test_float_neighbours_leave_nothing_rounded(wide, batches) -> None:
    """What passes between float layers is not quantised on the way."""
    space = explore(wide, batches, CONFIG)
    last = uniform(space, "int8", 8) | {"w2": Choice("float", 32), "w3": Choice("float", 32)}
    model = space.emit(last).model
    after = [n.op_type for n in model.graph if n.op_type in ("GlobalAveragePool", "QuantizeLinear")]
    assert after[-1] == "GlobalAveragePool"
