"""Products of rows with what ends their tiles, and softmax, against sums in float64."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from networks import with_constants

from infer_native import emit_model
from infer_native.isa import ISAS, runs_here

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]
WIDE = [name for name in HERE if ISAS[name].lanes]
HEAD = '<ir_version: 10, opset_import: ["": 20]>\n'
# Sixteen divides the outputs; the bias may stand in front or behind, the residual on either side.
FUSED = {
    "bias and residual": """t (float[2,9,21] x, float[2,9,48] r, float[21,48] w, float[48] b)
      => (float[2,9,48] y) { p = MatMul(x, w)  q = Add(b, p)  y = Add(q, r) }""",
    "scaled, two residuals": """t (float[17,21] x, float[17,32] r, float[17,32] s, float[21,32] w,
      float[1,32] b, float v) => (float[17,32] y)
      { p = MatMul(x, w)  q = Sub(r, p)  c = Mul(q, b)  d = Div(c, v)  y = Add(d, s) }""",
    "gemm and relu": """t (float[5,40] x, float[64,40] w, float[64] b) => (float[5,64] y)
      { p = Gemm<transB = 1>(x, w, b)  y = Relu(p) }""",
}
APART = {
    "part of a vector": """t (float[2,9,21] x, float[21,30] w, float[30] b) => (float[2,9,30] y)
      { p = MatMul(x, w)  y = Add(p, b) }""",
    "also an output": """t (float[2,9,21] x, float[21,32] w, float[32] b)
      => (float[2,9,32] y, float[2,9,32] p) { p = MatMul(x, w)  y = Add(p, b) }""",
    "computed for each output": """t (float[2,9,21] x, float[32] b, float[21,32] w)
      => (float[2,9,32] y) { p = MatMul(x, w)  y = Add(p, b) }""",
    "another shape": """t (float[1,9,21] x, float[3,9,32] r, float[21,32] w)
      => (float[3,9,32] y) { p = MatMul(x, w)  y = Add(p, r) }""",
}
INPUTS = {
    "bias and residual": 2,
    "scaled, two residuals": 3,
    "computed for each output": 2,
    "another shape": 2,
}


def compared(native, model: ir.Model, isa: str) -> None:
    rng = np.random.default_rng(4)
    feeds = {
        str(v.name): (rng.normal(size=v.shape.numpy()) + 0.3).astype(np.float32)
        for v in model.graph.inputs
    }
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    got = native(model, feeds, isa)
    for output, wanted in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        np.testing.assert_allclose(got[output.name], wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize("case", FUSED)
def test_a_chain_ends_the_tiles(native, case: str, isa: str) -> None:
    model = with_constants(HEAD + FUSED[case], INPUTS.get(case, 1))
    assert len(emit_model(model, isa=isa).operators) == 1
    compared(native, model, isa)


@pytest.mark.parametrize("case", APART)
def test_a_chain_that_stays(native, case: str) -> None:
    if not WIDE:
        pytest.skip("no vectors here")
    isa = WIDE[-1]
    model = with_constants(HEAD + APART[case], INPUTS.get(case, 1))
    assert "_Map" in emit_model(model, isa=isa).operators
    compared(native, model, isa)


@pytest.mark.parametrize("isa", HERE)
def test_softmax_of_rows(native, isa: str) -> None:
    """Rows shorter than a vector, with a rest, with infinities, with NaN; large numbers."""
    sizes = (1, 3, 16, 37, 130)
    given = ", ".join(f"float[6,{n}] x{n}" for n in sizes)
    made = ", ".join(f"float[6,{n}] y{n}" for n in sizes)
    body = " ".join(f"y{n} = Softmax(x{n})" for n in sizes)
    model = ir.from_onnx_text(f"{HEAD}t ({given}) => ({made}) {{ {body} }}")
    rng = np.random.default_rng(9)
    feeds = {f"x{n}": rng.normal(size=(6, n)).astype(np.float32) * 8 + 50 for n in sizes}
    for value in feeds.values():
        value[1] *= 1e4
        value[2, ::2] = -np.inf
        value[3, 0] = np.nan
        value[4] = -np.inf
    got = native(model, feeds, isa)
    for n in sizes:
        x = feeds[f"x{n}"].astype(np.float64)
        with np.errstate(invalid="ignore"):
            power = np.exp(x - x.max(axis=1, keepdims=True))
        wanted = power / power.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(got[f"y{n}"], wanted, rtol=2e-6, atol=1e-7, err_msg=str(n))
