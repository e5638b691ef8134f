"""Binary convolutions against ONNX Runtime: sums of bits are exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]
# channels, outputs, size, kernel, attributes
CASES = [
    (5, 7, (6, 7), (3, 3), "pads = [1, 1, 1, 1]"),
    (40, 20, (9, 8), (3, 2), "strides = [2, 3], pads = [0, 1, 1, 0]"),
    (33, 48, (8, 9), (3, 3), "strides = [1, 2], dilations = [2, 3], pads = [2, 3, 3, 2]"),
    (70, 3, (4, 5), (1, 1), "strides = [2, 2]"),
]


def model_of(case: tuple, *, last: float = 1) -> ir.Model:
    """A third of the inputs may lie on a threshold; `last` scales one weight."""
    channels, outputs, size, kernel, attrs = case
    rng = np.random.default_rng(channels)
    model = ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 20]>\n'
        f"t (float[2,{channels},{size[0]},{size[1]}] x, float[{channels},1,1] t, "
        f"float[{outputs},{channels},{kernel[0]},{kernel[1]}] w, float[{outputs},1,1] s, "
        f"float[{outputs},1,1] b) => (float[n,c,h,v] y)\n<float one = {{1}}, float other = {{-1}}>\n"
        "{ g = GreaterOrEqual(x, t)  v = Where(g, one, other)"
        f"  c = Conv<{attrs}>(v, w)  m = Mul(c, s)  y = Add(m, b) }}"
    )
    signs = np.where(rng.random((outputs, channels, *kernel)) < 0.5, 1, -1).astype(np.float32)
    signs[0, 0, 0, 0] *= last
    drawn = {
        "t": np.round(rng.normal(size=(channels, 1, 1)), 1),
        "w": signs,
        "s": rng.uniform(0.1, 2, (outputs, 1, 1)),
        "b": rng.normal(size=(outputs, 1, 1)),
    }
    for value in list(model.graph.inputs[1:]):
        value.const_value = ir.tensor(drawn[value.name or ""].astype(np.float32))
        model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    return model


def feed(model: ir.Model) -> dict[str, np.ndarray]:
    shape = model.graph.inputs[0].shape.numpy()  # type: ignore[union-attr]
    x = np.round(np.random.default_rng(1).normal(size=shape), 1)
    return {"x": x.astype(np.float32)}


@pytest.mark.parametrize("isa", HERE)
def test_every_geometry_of_bits(native, isa: str) -> None:
    for case in CASES:
        model = model_of(case)
        feeds = feed(model)
        assert "_BConv" in emit_model(model, isa=isa).operators
        session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
        (wanted,) = session.run(None, feeds)
        got = native(model, feeds, isa)["y"]
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-4, err_msg=str(case))


def test_a_weight_of_another_size_keeps_the_layer_in_float() -> None:
    assert "_BConv" not in emit_model(model_of(CASES[0], last=1.5), isa="scalar").operators
