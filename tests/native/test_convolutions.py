"""Convolutions of every geometry that has a kernel of its own, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]
# Operator, shape of the input, of the weights, attributes.
GEOMETRIES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (2, 8, 9, 23), (8, 8, 3, 7), {"pads": [1, 3, 1, 3]}),  # few outputs
    ("Conv", (1, 20, 7, 11), (1, 20, 5, 3), {"pads": [2, 0, 2, 1]}),
    ("Conv", (1, 5, 8, 19), (3, 5, 3, 5), {"strides": [2, 2]}),
    ("Conv", (1, 3, 15, 15), (20, 3, 3, 3), {"strides": [2, 2], "pads": [1, 1, 0, 2]}),
    ("Conv", (1, 24, 13, 10), (40, 24, 3, 3), {"pads": [1, 1, 1, 1]}),
    ("Conv", (2, 33, 9, 9), (17, 33, 3, 3), {"pads": [0, 1, 2, 0]}),
    ("Conv", (1, 16, 6, 6), (32, 16, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ("Conv", (1, 20, 9, 9), (20, 1, 5, 5), {"group": 20, "pads": [2, 2, 2, 2]}),
    ("Conv", (1, 12, 9, 9), (24, 4, 3, 3), {"group": 3}),
    ("Conv", (2, 6, 40), (18, 6, 5), {"strides": [2], "pads": [2, 1]}),  # signals
    ("ConvTranspose", (2, 24, 5, 7), (24, 20, 2, 2), {"strides": [2, 2]}),  # no overlap
    ("ConvTranspose", (1, 18, 6, 5), (18, 1, 2, 2), {"strides": [2, 2]}),
    ("ConvTranspose", (1, 6, 5, 5), (6, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
]


def network() -> Any:
    """All of them side by side, each with a Relu behind."""
    rng = np.random.default_rng(3)
    nodes, constants, inputs, outputs = [], [], [], []
    for number, (op, shape, weights, attrs) in enumerate(GEOMETRIES):
        out = weights[0 if op == "Conv" else 1]
        for name, size in (("w", weights), ("b", (out,))):
            values = (rng.normal(size=size) * 0.3).astype(np.float32)
            constants.append(numpy_helper.from_array(values, f"{name}{number}"))
        given = [f"x{number}", f"w{number}", f"b{number}"]
        nodes.append(helper.make_node(op, given, [f"c{number}"], **attrs))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"y{number}"]))
        inputs.append(helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, shape))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "convolutions", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return shape_inference.infer_shapes(model)


@pytest.mark.parametrize("isa", HERE)
def test_every_geometry(native, isa: str) -> None:
    proto, rng = network(), np.random.default_rng(4)
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


RESIDUALS = """<ir_version: 10, opset_import: ["": 20]>
t (float[1,16,6,6] x, float[20,16,1,1] w, float[20,16,3,3] v) => (float[1,20,6,6] y, float[1,20,6,6] z)
{ a = Conv(x, w)  b = Conv<pads = [1, 1, 1, 1]>(x, v)  s = Add(a, b)  y = Relu(s)
  c = Conv(x, w)  t = Mul(c, y)  u = Add(c, t)  z = Sigmoid(u) }"""


def test_a_sum_of_two_convolutions_takes_one_of_them(native) -> None:
    """And a chain that reads its convolution twice stays apart."""
    model, rng = ir.from_onnx_text(RESIDUALS), np.random.default_rng(6)
    for name, shape in (("w", (20, 16, 1, 1)), ("v", (20, 16, 3, 3))):
        value = next(v for v in model.graph.inputs if v.name == name)
        value.const_value = ir.tensor((rng.normal(size=shape) * 0.3).astype(np.float32))
        model.graph.register_initializer(value)
        model.graph.inputs.remove(value)
    x = rng.normal(size=(1, 16, 6, 6)).astype(np.float32)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    got = native(model, {"x": x})
    for name, wanted in zip(("y", "z"), session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(got[name], wanted, rtol=0, atol=5e-6, err_msg=name)
