"""What stands between integer layers: tables, moved bytes, products; against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]
HEAD = '<ir_version: 10, opset_import: ["": 20]>\n'
CHAIN = (
    HEAD
    + """t (float[1,20,6,10] x) => (float[1,20,6,10] y, float[1,20,6,10] z)
<float sa = {0.05}, uint8 za = {100}, float sb = {0.031}, uint8 zb = {20}, float k = {1.5},
 float sc = {0.04}, int8 zc = {-9}>
{ qx = QuantizeLinear(x, sa, za)  a = DequantizeLinear(qx, sa, za)
  b = HardSwish(a)  c = Mul(k, b)  d = Add(c, k)
  q = QuantizeLinear(d, sb, zb)  y = DequantizeLinear(q, sb, zb)
  e = Sigmoid(y)  f = Neg(e)  r = QuantizeLinear(f, sc, zc)  z = DequantizeLinear(r, sc, zc) }"""
)
SHARED = CHAIN.replace("float[1,20,6,10] z)", "float[1,20,6,10] z, float[1,20,6,10] c)")
MOVES = (
    HEAD
    + """t (float[2,24,6,5] x) => (float[2,5,24,6] y, float[n,c,h,w] z, float[n,c,h,w] u, float[n,c,h,w] g)
<float sa = {0.05}, uint8 za = {100}, float sb = {0.031}, uint8 zb = {20}, int64[8] p =
 {0, 1, 2, 0, 0, 0, 1, 3}, float[4] f = {1, 1, 2, 2}, int64[2] s = {1, 0}, int64[2] e = {3, 20},
 int64[2] axes = {2, 1}, float v = {0.5}>
{ qx = QuantizeLinear(x, sa, za)  a = DequantizeLinear(qx, sa, za)
  qh = QuantizeLinear(a, sb, zb)  h = DequantizeLinear(qh, sb, zb)
  b = Transpose<perm = [0, 3, 1, 2]>(a)  qb = QuantizeLinear(b, sb, zb)
  y = DequantizeLinear(qb, sb, zb)
  i = Concat<axis = 1>(a, h)  qi = QuantizeLinear(i, sb, zb)  j = DequantizeLinear(qi, sb, zb)
  k = Resize<mode = "nearest">(j, , f)  qk = QuantizeLinear(k, sb, zb)
  l = DequantizeLinear(qk, sb, zb)  m = Slice(l, s, e, axes)  qm = QuantizeLinear(m, sb, zb)
  z = DequantizeLinear(qm, sb, zb)
  o = Pad(a, p, v)  qo = QuantizeLinear(o, sa, za)  u = DequantizeLinear(qo, sa, za)
  r = MaxPool<kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 0, 1]>(u)
  qr = QuantizeLinear(r, sb, zb)  t = DequantizeLinear(qr, sb, zb)
  w = Pad(t, p, v)  qw = QuantizeLinear(w, sa, za)  g = DequantizeLinear(qw, sa, za) }"""
)
GATE = (
    HEAD
    + """t (float[1,20,7,5] x, float[1,20,GATE] w) => (float[1,20,7,5] y)
<float sa = {0.05}, uint8 za = {100}, float sb = {0.0041}, uint8 zb = {3}, float sc = {0.061},
 uint8 zc = {90}>
{ qx = QuantizeLinear(x, sa, za)  a = DequantizeLinear(qx, sa, za)
  qw = QuantizeLinear(w, sb, zb)  b = DequantizeLinear(qw, sb, zb)
  m = Mul(a, b)  q = QuantizeLinear(m, sc, zc)  y = DequantizeLinear(q, sc, zc) }"""
)


def wanted(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("isa", HERE)
def test_a_chain_between_bytes_is_a_table(native, isa: str) -> None:
    model = ir.from_onnx_text(CHAIN)
    x = np.random.default_rng(1).normal(0, 4, (1, 20, 6, 10)).astype(np.float32)
    operators = emit_model(model, isa=isa).operators
    assert operators.count("_QTable") == 2
    assert "_Map" not in operators
    for name, value in wanted(model, {"x": x}).items():
        assert len(np.unique(value)) > 5
        np.testing.assert_array_equal(native(model, {"x": x}, isa)[name], value, err_msg=name)


def test_a_chain_that_somebody_else_reads_stays(native) -> None:
    model = ir.from_onnx_text(SHARED)
    x = np.random.default_rng(1).normal(0, 4, (1, 20, 6, 10)).astype(np.float32)
    assert emit_model(model).operators.count("_QTable") == 1
    got = native(model, {"x": x})
    for name, value in wanted(model, {"x": x}).items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=2e-6, err_msg=name)


RESHAPED = (
    HEAD
    + """t (float[1,4,3,2] x) => (float[1,2,3,4] y)
<float sa = {0.05}, uint8 za = {100}, float sb = {0.031}, uint8 zb = {20}, int64[4] s = {1, 2, 3, 4},
 float[2,1,1] p = {0.3, -0.7}, float[4,1,1] o = {1.5, 0.1, 2.5, 0.2}>
{ qx = QuantizeLinear(x, sa, za)  a = DequantizeLinear(qx, sa, za)  b = PRelu(a, o)
  r = Reshape(b, s)  c = PRelu(r, p)  q = QuantizeLinear(c, sb, zb)
  y = DequantizeLinear(q, sb, zb) }"""
)


def test_channels_of_two_shapes_stay_in_float(native) -> None:
    model = ir.from_onnx_text(RESHAPED)
    x = np.random.default_rng(1).normal(0, 4, (1, 4, 3, 2)).astype(np.float32)
    assert "_QSlopes" not in emit_model(model).operators
    got = native(model, {"x": x})["y"]
    np.testing.assert_array_equal(got, wanted(model, {"x": x})["y"])


@pytest.mark.parametrize("isa", HERE)
def test_moved_bytes_have_the_bits(native, isa: str) -> None:
    """Transposed, joined, enlarged, cut and bordered, with other scales and with the same."""
    model = ir.from_onnx_text(MOVES)
    x = np.random.default_rng(2).normal(0, 4, (2, 24, 6, 5)).astype(np.float32)
    operators = emit_model(model, isa=isa).operators
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("_QTable") == 5  # to the other scale
    got = native(model, {"x": x}, isa)
    for name, value in wanted(model, {"x": x}).items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("gate", ["1,1", "7,5"])
def test_products_of_bytes(native, gate: str, isa: str) -> None:
    model = ir.from_onnx_text(GATE.replace("GATE", gate))
    rng = np.random.default_rng(2)
    shape = tuple(model.graph.inputs[1].shape.numpy())  # type: ignore[union-attr]
    feeds = {
        "x": rng.normal(0, 4, (1, 20, 7, 5)).astype(np.float32),
        "w": rng.uniform(0, 1, shape).astype(np.float32),
    }
    assert "_QMul" in emit_model(model, isa=isa).operators
    got = native(model, feeds, isa)["y"]
    np.testing.assert_array_equal(got, wanted(model, feeds)["y"])


def products(rows: int, inputs: int, outputs: int, *, row: bool) -> ir.Model:
    """MatMul with int8 weights per column, then, where asked for, a constant row of bytes."""
    rng = np.random.default_rng(inputs)
    add = (
        """ b = DequantizeLinear(c, sb, zb)  s = Add(p, b)
      t = QuantizeLinear(s, sd, zd)  y = DequantizeLinear(t, sd, zd)"""
        if row
        else ""
    )
    out = "y" if row else "p"
    model = ir.from_onnx_text(
        HEAD + f"t (float[2,{rows},{inputs}] x, int8[{inputs},{outputs}] w, float[{outputs}] sw, "
        f"uint8[{outputs}] c) => (float[2,{rows},{outputs}] {out})\n"
        "<float sa = {0.05}, uint8 za = {100}, float so = {0.41}, uint8 zo = {120}, "
        "float sb = {0.013}, uint8 zb = {130}, float sd = {0.37}, uint8 zd = {125}>\n"
        "{ qx = QuantizeLinear(x, sa, za)  a = DequantizeLinear(qx, sa, za)"
        "  f = DequantizeLinear<axis = 1>(w, sw)  m = MatMul(a, f)"
        f"  q = QuantizeLinear(m, so, zo)  p = DequantizeLinear(q, so, zo){add} }}"
    )
    drawn = {
        "w": rng.integers(-63, 64, (inputs, outputs)).astype(np.int8),
        "sw": rng.uniform(0.005, 0.01, outputs).astype(np.float32),
        "c": rng.integers(0, 256, outputs).astype(np.uint8),
    }
    for value in list(model.graph.inputs[1:]):
        value.const_value = ir.tensor(drawn[value.name or ""])
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    return model


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("sizes", [(9, 64, 48), (1, 20, 37), (5, 30, 16)])
def test_products_with_constant_matrices(native, sizes: tuple[int, int, int], isa: str) -> None:
    for row in (False, True):
        model = products(*sizes, row=row)
        x = np.random.default_rng(3).normal(0, 4, (2, *sizes[:2])).astype(np.float32)
        operators = emit_model(model, isa=isa).operators
        assert operators.count("_QMatMul") == 1
        assert not {"MatMul", "Add", "_Map"} & set(operators)
        ((name, value),) = wanted(model, {"x": x}).items()
        assert len(np.unique(value)) > 20
        np.testing.assert_array_equal(native(model, {"x": x}, isa)[name], value)
