"""Convolutions of every geometry that has a kernel of its own, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import GEOMETRIES, convolutions

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]


@pytest.mark.parametrize("isa", HERE)
def test_every_geometry(native, isa: str) -> None:
    proto, rng = convolutions(), np.random.default_rng(4)
    feeds = {
        f"x{n}": rng.normal(size=shape).astype(np.float32)
        for n, (_, shape, _, _) in enumerate(GEOMETRIES)
    }
    got = native(ir.from_proto(proto), feeds, isa)
    session = ort.InferenceSession(proto.SerializeToString())
    for info, wanted in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(
            got[info.name], wanted, rtol=0, atol=3e-6 * scale, err_msg=info.name
        )


def weighted(text: str, rng: np.random.Generator) -> ir.Model:
    """A model whose inputs but the first become random weights."""
    model = ir.from_onnx_text(text)
    for value in model.graph.inputs[1:]:
        assert value.shape is not None
        numbers = rng.normal(size=value.shape.numpy()) * 0.3
        value.const_value = ir.tensor(numbers.astype(np.float32))
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    return model


RESIDUALS = """<ir_version: 10, opset_import: ["": 20]>
t (float[1,16,6,6] x, float[20,16,1,1] w, float[20,16,3,3] v) => (float[1,20,6,6] y, float[1,20,6,6] z)
{ a = Conv(x, w)  b = Conv<pads = [1, 1, 1, 1]>(x, v)  s = Add(a, b)  y = Relu(s)
  c = Conv(x, w)  t = Mul(c, y)  u = Add(c, t)  z = Sigmoid(u) }"""


def test_a_sum_of_two_convolutions_takes_one_of_them(native) -> None:
    """And a chain that reads its convolution twice stays apart."""
    rng = np.random.default_rng(6)
    model = weighted(RESIDUALS, rng)
    x = rng.normal(size=(1, 16, 6, 6)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x})
    for name, wanted in zip(("y", "z"), session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=5e-6, err_msg=name)


POOLS = """<ir_version: 10, opset_import: ["": 20]>
t (float[2,16,9,11] x, float[20,16,1,1] k) => (float[n,c,h,w] a, float[n,c,h,w] b, float[n,c,h,w] d, float[n,c,h,w] e)
<int64[8] p = {0, 0, 1, 2, 0, 15, 0, 1}, float v = {0.5}>
{ s = Conv(x, k)
  a = MaxPool<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1]>(s)
  b = AveragePool<kernel_shape = [3, 3], strides = [1, 2], pads = [1, 1, 1, 1]>(s)
  c = AveragePool<kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 0, 0],
                  count_include_pad = 1>(s)
  d = Add(c, c)
  e = Pad(s, p, v) }"""


def test_pools_and_borders_on_blocks(native) -> None:
    rng = np.random.default_rng(6)
    model = weighted(POOLS, rng)
    x = rng.normal(size=(2, 16, 9, 11)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x})
    for name, wanted in zip("abde", session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=5e-6, err_msg=name)


GATES = """<ir_version: 10, opset_import: ["": 20]>
t (float[2,16,9,11] x, float[20,16,1,1] k, float[20,20,1,1] m, float[1,20,1,1] p, float[20,1,1] q, float[1] o)
  => (float[n,c,h,w] y, float[n,c,h,w] z)
{ s = Conv(x, k)  g = GlobalAveragePool(s)  c = Conv(g, m)  h = HardSigmoid(c)  a = Mul(s, h)
  b = PRelu(a, p)  d = Div(b, o)  e = Add(q, d)  y = Clip(e)  i = Sigmoid(a)  j = Mul(i, p)
  z = Conv(j, m) }"""


@pytest.mark.parametrize("isa", HERE)
def test_chains_with_numbers_for_each_channel(native, isa: str) -> None:
    """From constants, and from a mean of each image of the batch."""
    rng = np.random.default_rng(7)
    model = weighted(GATES, rng)
    operators = emit_model(model, isa=isa).operators
    assert operators.count("_ToPlain") == (0 if isa == "scalar" else 2)  # of the outputs
    x = rng.normal(size=(2, 16, 9, 11)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x}, isa)
    for name, wanted in zip("yz", session.run(None, {"x": x}), strict=True):
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=3e-6 * scale, err_msg=name)


JOINED = """<ir_version: 10, opset_import: ["": 20]>
t (float[2,16,5,7] x, float[20,16,1,1] k, float[33,16,1,1] m, float[8,85,1,1] u)
  => (float[n,c,h,v] y, float[n,c,h,v] z)
{ a = Conv(x, k)  b = Conv(x, m)  d = Concat<axis = 1>(b, a, x, x)  e = Concat<axis = -3>(x, b, x)
  y = Conv(d, u)  z = Relu(e) }"""


@pytest.mark.parametrize("isa", HERE)
def test_images_side_by_side_stay_in_blocks(native, isa: str) -> None:
    """Whole blocks, parts of blocks, and an image that comes as it lies."""
    rng = np.random.default_rng(8)
    model = weighted(JOINED, rng)
    x = rng.normal(size=(2, 16, 5, 7)).astype(np.float32)
    assert emit_model(model, isa=isa).operators.count("_ToPlain") == (0 if isa == "scalar" else 2)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x}, isa)
    for name, wanted in zip("yz", session.run(None, {"x": x}), strict=True):
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=3e-6 * scale, err_msg=name)
