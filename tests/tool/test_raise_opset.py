"""`--opset`: later operators only where the user allows them."""

from __future__ import annotations

import onnx
import pytest

from infer_tool import optimize

TEXT = """<ir_version: 10, opset_import: ["": 20]>
t (float[N,3,5,4] q, float[N,3,7,4] k, float[N,3,7,6] v) => (float[N,3,5,6] y)
<float h = {0.5}>
{ kt = Transpose<perm=[0,1,3,2]>(k)  s = MatMul(q, kt)  a = Mul(s, h)  p = Softmax<axis=-1>(a)
  y = MatMul(p, v) }"""


@pytest.mark.parametrize(
    ("asked", "opset", "ops"),
    [
        ({}, 20, ["Transpose", "MatMul", "Mul", "Softmax", "MatMul"]),
        ({"opset": 23}, 23, ["Attention"]),
        ({"opset": 13}, 20, ["Transpose", "MatMul", "Mul", "Softmax", "MatMul"]),  # never lower
    ],
)
def test_the_opset_is_raised_when_asked(tmp_path, asked, opset, ops) -> None:
    onnx.save(onnx.parser.parse_model(TEXT), source := tmp_path / "a.onnx")
    report = optimize(source, tmp_path / "b.onnx", **asked)
    model = onnx.load(tmp_path / "b.onnx")
    assert model.opset_import[0].version == report.artifact.opset == opset
    assert [node.op_type for node in model.graph.node] == ops
    assert [v.name for v in (*model.graph.input, *model.graph.output)] == ["q", "k", "v", "y"]
    assert ("opset" in [line.name for line in report.stages]) == (opset == 23)
