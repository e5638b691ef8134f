"""One node at a time against ONNX Runtime with its optimisations off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Array = np.ndarray[Any, Any]


def one_node(
    op: str, inputs: Sequence[Any], attributes: dict[str, Any], opset: int, outputs: int
) -> tuple[ir.Model, dict[str, Array]]:
    """A model of one node, and its feeds; None is an absent input."""
    values = [
        None if a is None else ir.val(f"x{i}", ir.DataType.from_numpy(a.dtype), a.shape)
        for i, a in enumerate(inputs)
    ]
    node = ir.node(op, values, attributes, num_outputs=outputs, name="tested")
    for i, value in enumerate(node.outputs):
        value.name = f"y{i}"
    given = [v for v in values if v is not None]
    graph = ir.Graph(given, node.outputs, nodes=[node], opset_imports={"": opset}, name="g")
    model = ir.Model(graph, ir_version=10)
    return model, {
        v.name: np.asarray(a) for v, a in zip(values, inputs, strict=True) if v is not None
    }


def onnxruntime_run(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """The outputs that ONNX Runtime computes, without optimisations."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    proto = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def assert_close(
    ours: dict[str, Array], theirs: dict[str, Array], rtol: float, atol: float
) -> None:
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        assert ours[name].dtype == wanted.dtype
        assert ours[name].shape == wanted.shape
        np.testing.assert_allclose(ours[name], wanted, rtol=rtol, atol=atol, err_msg=name)


@pytest.fixture
def agrees() -> Callable[..., None]:
    """agrees(op, inputs, opset=20, outputs=1, rtol=.., atol=.., **attributes)."""

    def check(
        op: str,
        *inputs: Any,
        opset: int = 20,
        outputs: int = 1,
        rtol: float = 1e-5,
        atol: float = 1e-6,
        **attributes: Any,
    ) -> None:
        model, feeds = one_node(op, inputs, attributes, opset, outputs)
        theirs = onnxruntime_run(ir.from_proto(ir.to_proto(model)), feeds)
        assert_close(Session(model).run(feeds), theirs, rtol, atol)

    return check


@pytest.fixture
def model_agrees() -> Callable[..., None]:
    """model_agrees(model text, feeds): the whole model against ONNX Runtime."""

    def check(text: str, rtol: float = 1e-5, atol: float = 1e-6, **feeds: Array) -> None:
        model = ir.from_onnx_text(text)
        theirs = onnxruntime_run(model, feeds)
        assert_close(Session(model).run(feeds), theirs, rtol, atol)

    return check


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
