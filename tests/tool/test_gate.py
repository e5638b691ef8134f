"""What every import must pass, and the choice of outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime.errors import UnsupportedOpError, UsageError
from infer_tool.importers import ImportOptions, import_source
from infer_tool.importers.gate import check

TEXT = """<ir_version: 10, opset_import: ["": 20, "other": 1]>
g (float[batch,4] x) => (float[batch,4] a, float[batch,4] b, float[batch] c)
{ a = Relu(x)  b = Neg(x)  c = ReduceSum<keepdims = 0>(a, axes) }"""


@pytest.fixture
def path(tmp_path):
    text = TEXT.replace("{ a", "<int64[1] axes = {1}> { a")
    ir.save(ir.from_onnx_text(text), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_chosen_outputs_come_in_the_order_asked_for(path) -> None:
    imported = import_source(str(path), ImportOptions(output_name=("c", "a")))
    assert [v.name for v in imported.model.graph.outputs] == ["c", "a"]
    x = np.array([[1, -2, 3, -4]], np.float32)
    outputs = imported.reference({"x": x})
    assert list(outputs) == ["c", "a"]
    np.testing.assert_array_equal(outputs["c"], [4])


def test_an_output_that_is_not_there(path) -> None:
    with pytest.raises(UsageError, match=r"--output-name d: .* has a, b, c"):
        import_source(str(path), ImportOptions(output_name=("d",)))


def test_operators_that_nobody_knows_are_counted() -> None:
    text = TEXT.replace("Relu(x)", "other.Twist(x)").replace("Neg(x)", "other.Twist(a)")
    model = ir.from_onnx_text(text.replace(", axes", ""))
    with pytest.raises(UnsupportedOpError, match=r"m: no ONNX operator for other::Twist \(2x\)"):
        check(model, "m")


def test_functions_of_the_model_are_known() -> None:
    text = TEXT.replace("Relu(x)", "other.Twist(x)").replace(", axes", "")
    body = '\n<domain: "other", opset_import: ["": 20]> Twist (x) => (y) { y = Relu(x) }'
    check(ir.from_onnx_text(text + body), "m")
