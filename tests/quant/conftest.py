"""Small float models and ways to look at what ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest


@pytest.fixture
def make():
    """A model from ONNX text whose names in `constants` become initialisers; nodes get names."""

    def build(text: str, **constants: np.ndarray) -> ir.Model:
        from onnx_ir.passes.common import ShapeInferencePass

        model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 20]>\n{text}')
        for name, array in constants.items():
            value = next(v for v in model.graph.inputs if v.name == name)
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(array, name=name)
            model.graph.register_initializer(value)
        for number, node in enumerate(model.graph.all_nodes()):
            node.name = f"n{number}"
        ShapeInferencePass()(model)
        return model

    return build


@pytest.fixture
def run_ort():
    """Outputs of ONNX Runtime, exact or as deployed."""

    def run(model: ir.Model, feeds: dict[str, Any], *, optimize: bool = False) -> list[np.ndarray]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
        return session.run(None, feeds)

    return run


@pytest.fixture
def engine_ops(tmp_path: Path):
    """Operators that ONNX Runtime really runs after its own optimisation."""

    def count(model: ir.Model, *, int8: bool = False) -> Counter[str]:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # On x86 int8 activations are fused completely only when they are allowed by name.
        options.add_session_config_entry("session.qdqisint8allowed", "1" if int8 else "0")
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
        graph = onnx.load(tmp_path / "optimised.onnx").graph
        return Counter(node.op_type for node in graph.node)

    return count


@pytest.fixture
def network(make):
    """Conv, depthwise, residual, pooling and dense, [N,3,8,8] -> [N,5]."""
    r = np.random.default_rng(4)

    def w(*shape: int) -> np.ndarray:
        return (r.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    text = """net (float[N,3,8,8] x, float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2,
        float[8,8,1,1] w3, float[40,5] w4, float[5] b4, float lo, float hi, int64[2] s) => (float[N,5] y)
    { a = Conv<pads=[1,1,1,1]>(x, w1, b1)  ar = Clip(a, lo, hi)
      b = Conv<group=8, pads=[1,1,1,1]>(ar, w2, b2)  br = Relu(b)
      c = Conv(br, w3)  d = Add(c, ar)  e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(d)
      f = Concat<axis=1>(e, e)  g = GlobalAveragePool(f)  g2 = GlobalAveragePool(e)
      h = Flatten(g)  h2 = Flatten(g2)  h3 = Concat<axis=1>(h, h2, h)  y = Gemm(h3, w4, b4) }"""
    return make(
        text, w1=w(8, 3, 3, 3), b1=w(8), w2=w(8, 1, 3, 3), b2=w(8), w3=w(8, 8, 1, 1),
        w4=w(40, 5), b4=w(5), lo=np.float32(0), hi=np.float32(6), s=np.array([0, -1]),
    )  # fmt: skip


@pytest.fixture
def batches() -> list[dict[str, np.ndarray]]:
    """Eight batches of eight samples for `network`."""
    r = np.random.default_rng(9)
    return [{"x": r.normal(size=(8, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
