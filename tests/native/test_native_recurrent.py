"""Recurrent layers as C against ONNX Runtime: every operator, direction and kind of gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
WIDTH, HIDDEN = 5, 18
CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("LSTM", {"direction": "bidirectional"}, True),
    ("LSTM", {"activations": ["Sigmoid", "Relu", "Softsign"]}, False),
    ("GRU", {"direction": "reverse"}, True),
    ("GRU", {"direction": "bidirectional", "linear_before_reset": 1}, False),
    ("RNN", {"direction": "bidirectional"}, True),
]


def network(batch: int, steps: int) -> onnx.ModelProto:
    """All cases on the same input, with initial states as inputs in some of them."""
    rng = np.random.default_rng(0)
    nodes, constants, outputs, inputs = [], [], [], ["x"]
    for number, (op, attrs, states) in enumerate(CASES):
        d = 2 if attrs.get("direction") == "bidirectional" else 1
        gates = GATES[op] * HIDDEN
        shapes = [(d, gates, WIDTH), (d, gates, HIDDEN), (d, 2 * gates)]
        names = [f"{k}{number}" for k in "wrb"]
        for name, shape in zip(names, shapes, strict=True):
            values = (rng.normal(size=shape) * 0.4).astype(np.float32)
            constants.append(numpy_helper.from_array(values, name))
        given = ["x", *names]
        if states:
            inputs.append(f"h{number}")
            given += ["", f"h{number}"]
        made = [f"y{number}", f"yh{number}", *([f"yc{number}"] if op == "LSTM" else [])]
        if op == "RNN":
            made[0] = ""  # only the last state
        outputs += filter(None, made)
        nodes.append(helper.make_node(op, given, made, hidden_size=HIDDEN, **attrs))
    shapes = {"x": [steps, batch, WIDTH]}
    infos = [
        helper.make_tensor_value_info(
            n, TensorProto.FLOAT, shapes.get(n, [1 if n == "h2" else 2, batch, HIDDEN])
        )
        for n in inputs
    ]
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph(nodes, "recurrent", infos, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize(("isa", "batch"), [("auto", 1), ("auto", 3), ("scalar", 2)])
def test_every_recurrent_operator(native, isa: str, batch: int) -> None:
    proto = network(batch, 4)
    rng = np.random.default_rng(1)
    feeds = {
        i.name: rng.normal(
            size=[d.dim_value for d in i.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for i in proto.graph.input
    }  # fmt: skip
    session = ort.InferenceSession(proto.SerializeToString())
    got = native(ir.from_proto(proto), feeds, isa)
    for info, wanted in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        np.testing.assert_allclose(got[info.name], wanted, rtol=0, atol=2e-6, err_msg=info.name)
