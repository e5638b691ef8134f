"""What ONNX Runtime computes with integers is read from its own graph, not from our intentions."""

from __future__ import annotations

import onnx
import pytest

from infer_tool.importers.onnx import read

pytest.importorskip("onnxruntime")
from infer_tool.engines.onnxruntime_kernels import deployed

HEAD = '<ir_version: 9, opset_import: ["" : 19]> g (float[1,2,8,8] x) => (float[1,2,6,6] y) '
WEIGHTS = """<float s = {0.1}, int8 z = {0}, uint8 u = {3},
    int8[2,2,3,3] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}>"""
CONV = (
    "xq = QuantizeLinear(x, s, u) xd = DequantizeLinear(xq, s, u) wd = DequantizeLinear(w, s, z) "
)


def write(path, body: str):
    model = onnx.parser.parse_model(HEAD + WEIGHTS + "{" + body + "}")
    for number, node in enumerate(model.graph.node):
        node.name = node.op_type + str(number)
    onnx.save(model, path)
    return read(path)


def test_convolution_between_quantisers(tmp_path) -> None:
    body = CONV + "c = Conv(xd, wd) cq = QuantizeLinear(c, s, u) y = DequantizeLinear(cq, s, u)"
    model = write(tmp_path / "m.onnx", body)
    found = deployed(tmp_path / "m.onnx", model, {})
    assert (found.macs_fraction, found.kernels, found.float_nodes) == (1.0, {"QLinearConv": 1}, ())


def test_convolution_with_a_float_output_is_not_counted(tmp_path) -> None:
    model = write(tmp_path / "m.onnx", CONV + "y = Conv(xd, wd)")
    found = deployed(tmp_path / "m.onnx", model, {})
    assert (found.macs_fraction, found.kernels, found.float_nodes) == (0.0, {}, ("Conv3",))


def test_a_float_model_has_no_share(tmp_path) -> None:
    model = write(tmp_path / "m.onnx", "wd = DequantizeLinear(w, s, z) y = Conv(x, wd)")
    assert deployed(tmp_path / "m.onnx", model, {}) is None
