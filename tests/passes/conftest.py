"""One helper that every pass test calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_runtime import Session
from passes.feeds import random_feeds
from passes.infer_shapes import InferShapes
from passes.verify import verify


def build(text: str, **constants: np.ndarray) -> ir.Model:
    """A model from ONNX text whose names in `constants` become initialisers; nodes get names."""
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 20]>\n{text}')
    graph = model.graph
    for name, array in constants.items():
        value = next(v for v in graph.inputs if v.name == name)
        graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        graph.register_initializer(value)
    for number, node in enumerate(graph.all_nodes()):
        node.name = f"n{number}"
    return model


def run_ort(model: ir.Model, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    """ONNX Runtime without any optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def interface(model: ir.Model) -> list[tuple[Any, ...]]:
    """What must never change."""
    values = [*model.graph.inputs, *model.graph.outputs]
    return [
        (v.name, v.dtype, None if v.shape is None else tuple(map(str, v.shape))) for v in values
    ]


@pytest.fixture
def apply_pass():
    """Copy, apply, verify; same interface; same outputs in ONNX Runtime; returns the op list."""

    def apply(item, model: ir.Model, tolerance: float = 1e-5, **shapes: Any):
        copy = model.clone()
        outcome = item.apply(copy)
        verify(copy)
        assert interface(copy) == interface(model)
        feeds = random_feeds(Session(model).inputs, 3, shapes)
        wanted, got = run_ort(model, feeds), run_ort(copy, feeds)
        for name, value in wanted.items():
            scale = max(float(np.abs(value).max()), 1e-6)
            np.testing.assert_allclose(got[name], value, rtol=0, atol=tolerance * scale)
        return [n.op_type for n in copy.graph], outcome, copy

    return apply


@pytest.fixture(scope="session")
def make():
    """`build` as a fixture."""
    return build


@pytest.fixture(scope="session")
def make_known():
    """`build` as a fixture, with the shapes of all values inferred."""

    def known(text: str, **constants: np.ndarray) -> ir.Model:
        model = build(text, **constants)
        InferShapes().apply(model)
        return model

    return known


@pytest.fixture(scope="session")
def ort_outputs():
    """`run_ort` as a fixture."""
    return run_ort
