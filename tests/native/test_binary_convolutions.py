"""Binary convolutions against ONNX Runtime: sums of bits are exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import BINARY_CASES, binary_network

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]


def feed(model: ir.Model) -> dict[str, np.ndarray]:
    shape = model.graph.inputs[0].shape.numpy()  # type: ignore[union-attr]
    x = np.round(np.random.default_rng(1).normal(size=shape), 1)
    return {"x": x.astype(np.float32)}


@pytest.mark.parametrize("isa", HERE)
def test_every_geometry_of_bits(native, isa: str) -> None:
    for case in BINARY_CASES:
        model = binary_network(case)
        feeds = feed(model)
        assert "_BConv" in emit_model(model, isa=isa).operators
        session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
        (wanted,) = session.run(None, feeds)
        got = native(model, feeds, isa)["y"]
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-4, err_msg=str(case))


def test_a_weight_of_another_size_keeps_the_layer_in_float() -> None:
    assert (
        "_BConv"
        not in emit_model(binary_network(BINARY_CASES[0], last=1.5), isa="scalar").operators
    )
