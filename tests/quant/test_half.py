"""Half precision: small error, same interface, refusals."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant import quantize_model
from quant.config import QuantizeConfig

FP16 = QuantizeConfig(scheme="fp16")


def test_network(network, batches, run_ort) -> None:
    result = quantize_model(network, [], FP16)
    wanted, got = run_ort(network, batches[0])[0], run_ort(result.model, batches[0])[0]
    ours = Session(result.model).run(batches[0])["y"]
    assert got.dtype == ours.dtype == np.float32
    for value in (got, ours):
        np.testing.assert_allclose(value, wanted, rtol=0, atol=3e-3 * np.abs(wanted).max())
    assert result.coverage.macs_fraction == 1
    floats = [v for v in result.model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert not floats
    assert [v.name for v in result.model.graph.outputs] == ["y"]


def test_large_constant_stays_in_float(make, run_ort) -> None:
    text = "t (float[N,2] x, float[2] k, float[2] j) => (float[N,2] y) { a = Mul(x, k)  y = Add(a, j) }"
    model = make(text, k=np.float32([1e6, 1]), j=np.float32([1, 1]))
    result = quantize_model(model, [], FP16)
    assert [(r.node, "65504" in r.reason) for r in result.refusals] == [("n0", True)]
    x = np.float32([[1e-4, 2]])
    np.testing.assert_allclose(run_ort(result.model, {"x": x})[0], [[101, 3]], rtol=1e-3)


def test_excluded_node_and_intermediate_output(make, run_ort) -> None:
    text = """t (float[N,2] x, float[2] k) => (float[N,2] y, float[N,2] a)
    { a = Mul(x, k)  b = Exp(a)  y = Add(b, k) }"""
    model = make(text, k=np.float32([0.1, 0.3]))
    result = quantize_model(model, [], QuantizeConfig(scheme="fp16", exclude=("n1",)))
    x = {"x": np.float32([[1.7, -2.1]])}
    for wanted, got in zip(run_ort(model, x), run_ort(result.model, x), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, rtol=2e-3)
    ops = [n.op_type for n in result.model.graph]
    assert ops.count("Cast") >= 3


def test_control_flow_is_refused(make) -> None:
    text = """t (bool c, float[2] x) => (float[2] y)
    { y = If (c) <then_branch = th () => (float[2] p) { p = Relu(x) },
                  else_branch = el () => (float[2] q) { q = Abs(x) }> }"""
    with pytest.raises(UsageError, match="fp16"):
        quantize_model(make(text), [], FP16)
