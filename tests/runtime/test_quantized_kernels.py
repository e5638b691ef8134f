"""Quantised operators: bit for bit against ONNX Runtime, and by hand where it has no kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session, run_node

Agrees = Callable[..., None]
HALVES = np.array([-400, -2.5, -1.5, -0.5, 0, 0.5, 1.5, 2.5, 400], np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_quantize_rounds_half_to_even_and_saturates(agrees: Agrees, dtype: Any) -> None:
    scale, zero = np.float32(1), np.array(3, dtype)
    agrees("QuantizeLinear", HALVES, scale, zero, opset=21, rtol=0, atol=0)


def test_quantize_by_hand() -> None:
    node = ir.node("QuantizeLinear", [ir.val(n) for n in "xs"], name="q")
    (y,) = run_node(node, [HALVES, np.array(1, np.float32)], 20)
    assert y.dtype == np.uint8
    assert y.tolist() == [0, 0, 0, 0, 0, 0, 2, 2, 255]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_per_axis(agrees: Agrees, rng: Any, axis: int) -> None:
    x = (rng.normal(size=(3, 4, 5)) * 50).astype(np.float32)
    n = x.shape[axis]
    scale = rng.uniform(0.3, 1.2, n).astype(np.float32)
    zero = rng.integers(-9, 9, n).astype(np.int8)
    agrees("QuantizeLinear", x, scale, zero, axis=axis, rtol=0, atol=0)
    agrees("DequantizeLinear", x.astype(np.int8), scale, zero, axis=axis, rtol=0, atol=0)


def test_blocks_of_an_axis(agrees: Agrees, rng: Any) -> None:
    x = (rng.normal(size=(6, 4)) * 50).astype(np.float32)
    scale = rng.uniform(0.3, 1.2, (3, 4)).astype(np.float32)
    zero = rng.integers(-9, 9, (3, 4)).astype(np.int8)
    options = {"axis": 0, "block_size": 2, "opset": 21, "rtol": 0, "atol": 0}
    agrees("QuantizeLinear", x, scale, zero, **options)
    agrees("DequantizeLinear", x.astype(np.int8), scale, zero, **options)


def test_dequantize_int32_bias(agrees: Agrees) -> None:
    x = np.array([2**31 - 1, -(2**31), 12345, 0], np.int32)
    agrees("DequantizeLinear", x, np.float32(0.003), rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "low", "high"), [(ml_dtypes.int4, -8, 7),
                                                    (ml_dtypes.uint4, 0, 15)])  # fmt: skip
def test_four_bits_saturate_and_return(dtype: Any, low: int, high: int) -> None:
    one, zero = np.array(1, np.float32), np.array(0, dtype)
    values = [ir.val(n) for n in "xsz"]
    x = np.array([-99, -3, 0, 2.5, 99], np.float32)
    (q,) = run_node(ir.node("QuantizeLinear", values), [x, one, zero], 21)
    assert q.dtype == np.dtype(dtype)
    (back,) = run_node(ir.node("DequantizeLinear", values), [q, one, zero], 21)
    assert back.tolist() == [low, max(low, -3), 0, 2, high]


def test_a_scale_of_the_wrong_length() -> None:
    node = ir.node("QuantizeLinear", [ir.val("x"), ir.val("s")], name="q7")
    scale = np.ones(5, np.float32)
    with pytest.raises(Exception, match=r"node q7 .*scale of shape \[5\] does not fit axis 1"):
        run_node(node, [np.ones((2, 3), np.float32), scale], 20)


def test_dynamic_quantize(agrees: Agrees, rng: Any) -> None:
    for mean in (0, 5, -5):
        x = (rng.normal(size=50) + mean).astype(np.float32)
        agrees("DynamicQuantizeLinear", x, outputs=3, rtol=0, atol=0)


def test_integer_products(agrees: Agrees, rng: Any) -> None:
    a = rng.integers(0, 255, (3, 300)).astype(np.uint8)
    b = rng.integers(-128, 127, (300, 4)).astype(np.int8)
    zeros = np.array(7, np.uint8), np.array(-3, np.int8)
    agrees("MatMulInteger", a, b, *zeros, rtol=0, atol=0)
    x = rng.integers(0, 255, (1, 4, 6, 6)).astype(np.uint8)
    w = rng.integers(0, 255, (6, 2, 3, 3)).astype(np.uint8)
    zeros = np.array(100, np.uint8), np.array(90, np.uint8)
    agrees("ConvInteger", x, w, *zeros, group=2, pads=[1, 1, 1, 1], rtol=0, atol=0)


def test_q_linear(agrees: Agrees, rng: Any) -> None:
    def scale(*values: float) -> np.ndarray:
        return np.array(values if len(values) > 1 else values[0], np.float32)

    x = rng.integers(0, 255, (2, 4, 6, 6)).astype(np.uint8)
    w = rng.integers(-127, 127, (3, 4, 3, 3)).astype(np.int8)
    bias = rng.integers(-3000, 3000, 3).astype(np.int32)
    zero, none = np.array(120, np.uint8), np.zeros(3, np.int8)
    inputs = (x, scale(0.02), zero, w, scale(0.01, 0.02, 0.03), none, scale(0.3), zero, bias)
    agrees("QLinearConv", *inputs, pads=[1, 1, 1, 1], strides=[2, 2], rtol=0, atol=0)
    a, b = x[0, 0], rng.integers(0, 255, (6, 5)).astype(np.uint8)
    inputs = (a, scale(0.02), zero, b, scale(0.01), zero, scale(0.1), zero)
    agrees("QLinearMatMul", *inputs, rtol=0, atol=0)


QDQ = """<ir_version: 10, opset_import: ["": 20]>
g (float[1,3,8,8] x) => (float[1,4,8,8] y)
<float s = {0.05}, uint8 z = {120}, float[4] ws = {0.01, 0.02, 0.01, 0.03}, int8[4] wz = {0,0,0,0},
 float[4] bs = {0.0005, 0.001, 0.0005, 0.0015}, int32[4] b = {100, -50, 0, 7}> {
  xq = QuantizeLinear(x, s, z)
  xd = DequantizeLinear(xq, s, z)
  shape = Constant<value_ints=[4,3,3,3]>()
  w = ConstantOfShape<value = int8[1] {-37}>(shape)
  wd = DequantizeLinear<axis=0>(w, ws, wz)
  bd = DequantizeLinear<axis=0>(b, bs)
  c = Conv<pads=[1,1,1,1]>(xd, wd, bd)
  yq = QuantizeLinear(c, s, z)
  y = DequantizeLinear(yq, s, z)
}"""


def test_a_whole_qdq_graph(model_agrees: Callable[..., None], rng: Any) -> None:
    # Sums that land within float rounding of a half may go either way: one step of 0.05.
    x = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    model_agrees(QDQ, rtol=0, atol=0.0500001, x=x)
    assert Session(ir.from_onnx_text(QDQ)).run({"x": x}, ["yq"])["yq"].dtype == np.uint8
