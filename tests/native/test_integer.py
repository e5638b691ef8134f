"""Integer layers against ONNX Runtime's own integer kernels: the same bits."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import Network, integer_network, sloped_network

from infer_native import build_library, emit_model
from infer_native.isa import ISAS, runs_here
from infer_native.slopes import slopes

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]


def has_the_bits_of_onnx_runtime(native, model: ir.Model, isa: str) -> None:
    x = np.random.default_rng(1).normal(0, 2, (2, 3, 19, 17)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x}, isa)
    for info, wanted in zip(session.get_outputs(), session.run(None, {"x": x}), strict=True):
        assert len(np.unique(wanted)) > 10
        assert np.array_equal(got[info.name], wanted), info.name


@pytest.mark.parametrize("isa", HERE)
def test_every_integer_layer_has_the_bits_of_onnx_runtime(native, isa: str) -> None:
    has_the_bits_of_onnx_runtime(native, integer_network(), isa)


@pytest.mark.parametrize("isa", HERE)
def test_lines_behind_integer_layers_have_the_bits_of_onnx_runtime(native, isa: str) -> None:
    model = sloped_network()
    has_the_bits_of_onnx_runtime(native, model, isa)
    operators = emit_model(model, isa=isa).operators
    assert not {"_Map", "PRelu"} & set(operators)
    assert operators.count("DequantizeLinear") == 3  # of the outputs
    assert operators.count("_QSlopes") == (6 if isa == "scalar" else 1)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_of_few_channels(native, channels: int) -> None:
    """Lines of a filter lie side by side, unless it is dilated."""
    net = Network((2, channels, 11, 13))
    model = net.model(
        net.conv(net.input, 20, channels, 5, strides=[2, 3], pads=[2, 1, 2, 0]),
        net.conv(net.input, 5, channels, 3, dilations=[2, 2], pads=[0, 2, 1, 2]),
        net.conv(net.input, 17, channels, 1),
    )
    x = np.random.default_rng(1).normal(0, 2, (2, channels, 11, 13)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x})
    for info, wanted in zip(session.get_outputs(), session.run(None, {"x": x}), strict=True):
        assert len(np.unique(wanted)) > 10
        assert np.array_equal(got[info.name], wanted), info.name


@pytest.mark.parametrize("isa", ["sse", "avx2"])
def test_clang_meets_no_function_that_nobody_calls(library_folder, isa: str) -> None:
    """One convolution needs few of those that integer layers share."""
    if importlib.util.find_spec("ziglang") is None or not runs_here(ISAS[isa]):
        pytest.skip(f"ziglang or {isa} is not here")
    net = Network((1, 3, 9, 9))
    emitted = emit_model(net.model(net.conv(net.input, 8, 3, 3)), isa=isa)
    assert build_library(emitted, compiler="zig", folder=library_folder).exists()


@pytest.mark.parametrize("zero", [0, 128, 255])
@pytest.mark.parametrize("zero_out", [0, 131, 255])
def test_lines_give_every_byte_its_value(zero: int, zero_out: int) -> None:
    """From zero points at the ends too, rising, falling, flat and steep."""
    scales = np.float32([0.0473, 0.0291])
    factors = np.float32([-1.3, -0.0001, 0, 0.25, 0.6152344, 1, 7, 900])[:, None]
    x = (np.arange(256) - zero).astype(np.float32) * scales[0]
    y = np.rint(np.where(x < 0, x * factors, x) / scales[1]) + np.float32(zero_out)
    table = np.clip(y, 0, 255).astype(np.uint8)
    found = slopes(table, zero, zero_out)
    assert found is not None
    d = (np.arange(256) - zero).astype(np.float32)
    line = np.where(d < 0, d * found.down[:, None], d * found.up[:, None])
    assert np.array_equal(np.clip(np.rint(line) + np.float32(zero_out), 0, 255), table)


def test_what_is_no_line_has_no_factors() -> None:
    table = np.arange(256, dtype=np.uint8)[None]
    assert slopes(table, 100, 100) is not None
    assert slopes(np.minimum(table, 170), 100, 100) is None  # bends once more
    assert slopes(table + np.uint8(1), 100, 100) is None  # misses the zero point


def test_no_layer_between_quantised_tensors_stays_in_float() -> None:
    operators = emit_model(integer_network(), isa="scalar").operators
    assert not {"Conv", "Gemm", "GlobalAveragePool"} & set(operators)
    assert operators.count("_QConv") == 8
    assert operators.count("QuantizeLinear") == 1


def test_a_bias_at_another_scale_keeps_its_layer_in_float(native) -> None:
    net = Network((1, 3, 9, 9), bias=1.01)
    model = net.model(net.conv(net.input, 8, 3, 3))
    assert "Conv" in emit_model(model, isa="scalar").operators
    x = np.random.default_rng(2).normal(0, 2, (1, 3, 9, 9)).astype(np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    (wanted,) = session.run(None, {"x": x})
    (got,) = native(model, {"x": x}).values()
    steps = np.abs(got - wanted) / np.diff(np.unique(wanted)).min()
    assert (steps > 0.5).mean() < 0.01  # sums of floats in another order
    assert steps.max() < 1.5


SUM = """<ir_version: 10, opset_import: ["": 20]>
t (float[65536] x, float[65536] y) => (float[65536] z)
<float sa = {0.04729335010051727}, uint8 za = {129}, float sb = {0.1251244992017746},
 uint8 zb = {119}, float sc = {0.12802784144878387}, uint8 zc = {127}>
{ qx = QuantizeLinear(x, sa, za)  a = DequantizeLinear(qx, sa, za)
  qy = QuantizeLinear(y, sb, zb)  b = DequantizeLinear(qy, sb, zb)
  s = Add(a, b)  q = QuantizeLinear(s, sc, zc)  z = DequantizeLinear(q, sc, zc) }"""


def test_all_sums_of_two_bytes_round_as_in_onnx_runtime(native) -> None:
    """With scales for which the order of every product and sum can be seen."""
    model = ir.from_onnx_text(SUM)
    a, b = (m.reshape(-1) for m in np.meshgrid(np.arange(256), np.arange(256)))
    x = ((a - 129) * np.float32(0.04729335010051727)).astype(np.float32)
    y = ((b - 119) * np.float32(0.1251244992017746)).astype(np.float32)
    assert "_QAdd" in emit_model(model, isa="scalar").operators
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    (wanted,) = session.run(None, {"x": x, "y": y})
    assert np.array_equal(native(model, {"x": x, "y": y})["z"], wanted)


def test_an_operator_between_integer_layers_is_a_table_in_blocks(native) -> None:
    """Within a step: ONNX Runtime computes HardSwish in another order."""
    net = Network((1, 3, 9, 9))
    first = net.conv(net.input, 20, 3, 3)
    model = net.model(net.conv(net.hard_swish(first), 24, 20, 1))
    x = np.random.default_rng(2).normal(0, 2, (1, 3, 9, 9)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    (wanted,) = session.run(None, {"x": x})
    (got,) = native(model, {"x": x}).values()
    steps = np.abs(got - wanted) / np.diff(np.unique(wanted)).min()
    assert (steps > 0.5).mean() < 0.01
    assert steps.max() < 1.5
    operators = emit_model(model, isa="avx512").operators
    assert operators.index("_QTable") < len(operators) - 1
    assert operators.count("_ToPlain") == 1  # of the output
