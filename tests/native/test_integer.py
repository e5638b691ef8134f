"""Integer layers against ONNX Runtime's own integer kernels: the same bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import Network, integer_network

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]


@pytest.mark.parametrize("isa", HERE)
def test_every_integer_layer_has_the_bits_of_onnx_runtime(native, isa: str) -> None:
    model = integer_network()
    x = np.random.default_rng(1).normal(0, 2, (2, 3, 19, 17)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x}, isa)
    for info, wanted in zip(session.get_outputs(), session.run(None, {"x": x}), strict=True):
        assert len(np.unique(wanted)) > 10
        assert np.array_equal(got[info.name], wanted), info.name


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
