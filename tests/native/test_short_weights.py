"""Weights of 8 and 4 bits beside float activations: the blob keeps them, the outputs are the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from infer_native import emit_model
from infer_native.choices import Choice, mark
from infer_native.isa import ISAS, find_isa, runs_here
from infer_native.kernels.spread import widest
from infer_native.lower import lower

HERE = [name for name, isa in ISAS.items() if runs_here(isa)]
WIDE = [name for name in HERE if ISAS[name].lanes]
INPUTS, OUTPUTS = 96, 70


def model(rows: int, kind: int, block: int, *, gemm: bool, zero: int | None = None) -> ir.Model:
    """x times weights of `kind`, a scale for each output, or for `block` inputs of it."""
    rng = np.random.default_rng(kind)
    low, high = (-8, 8) if kind == TensorProto.INT4 else (-128, 128)
    shape = (OUTPUTS, INPUTS) if gemm else (INPUTS, OUTPUTS)
    codes = rng.integers(low, high, shape)
    depth = 1 if gemm else 0
    spread = [OUTPUTS, OUTPUTS]
    spread[depth] = INPUTS // block if block else 1
    scale = rng.uniform(0.01, 0.1, spread).astype(np.float32)
    scale = scale if block else scale.reshape(-1)
    constants = [
        helper.make_tensor("w", kind, shape, codes.reshape(-1).tolist()),
        numpy_helper.from_array(scale, "s"),
    ]
    names = ["w", "s"]
    if zero is not None:
        constants.append(
            helper.make_tensor("z", kind, scale.shape, np.full(scale.size, zero).tolist())
        )
        names.append("z")
    given = {"axis": depth, "block_size": block} if block else {"axis": 1 - depth}
    nodes = [helper.make_node("DequantizeLinear", names, ["f"], **given)]
    attrs = {"transB": 1} if gemm else {}
    nodes.append(helper.make_node("Gemm" if gemm else "MatMul", ["x", "f"], ["p"], **attrs))
    nodes.append(helper.make_node("Relu", ["p"], ["y"]))
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [rows, size])
        for n, size in (("x", INPUTS), ("y", OUTPUTS))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(made)
    return ir.from_proto(made)


def compared(native, made: ir.Model, isa: str) -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=made.graph.inputs[0].shape.numpy()).astype(np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(made).SerializeToString(), options)
    (wanted,) = session.run(None, {"x": x})
    got = native(made, {"x": x}, isa)["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize(("kind", "block"), [(TensorProto.INT8, 0), (TensorProto.INT4, 32)])
@pytest.mark.parametrize("gemm", [False, True])
def test_the_outputs_are_those_of_floats(native, isa, kind, block, gemm) -> None:
    for rows in (1, 13):
        compared(native, model(rows, kind, block, gemm=gemm), isa)


@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize(
    ("kind", "block", "bits"),
    [(TensorProto.INT8, 0, 8), (TensorProto.INT4, 32, 4), (TensorProto.INT4, 0, 4)],
)
def test_the_blob_keeps_them_short(isa, kind, block, bits) -> None:
    emitted = emit_model(model(5, kind, block, gemm=False), None, isa)
    columns = -(-OUTPUTS // ISAS[isa].lanes) * ISAS[isa].lanes
    blocks = INPUTS // block if block else 1
    assert len(emitted.weights) <= columns * (INPUTS * bits / 8 + 4 * blocks + 4) + 256


def test_what_stays_as_floats(native) -> None:
    """Integers around another zero, and weights that are halved on the way."""
    for made in (
        model(5, TensorProto.INT8, 0, gemm=False, zero=3),
        model(5, TensorProto.INT8, 0, gemm=True),
    ):
        gemm = made.graph[1]
        if gemm.op_type == "Gemm":
            gemm.attributes["alpha"] = ir.AttrFloat32("alpha", 0.3)
        isa = WIDE[-1] if WIDE else HERE[0]
        emitted = emit_model(made, None, isa)
        assert len(emitted.weights) >= 4 * INPUTS * OUTPUTS
        compared(native, made, isa)


@pytest.mark.parametrize("isa", WIDE)
def test_what_is_to_choose_from_begins_with_what_is_taken(isa) -> None:
    """Long products: a panel of floats has to fit, so that tiles are narrower."""
    rng = np.random.default_rng(1)
    text = """<ir_version: 10, opset_import: ["": 21]>
      t (float[64,8192] x, int8[8192,256] w, float[256] s) => (float[64,256] y)
      { f = DequantizeLinear<axis = 1>(w, s)  y = MatMul(x, f) }"""
    made = ir.from_onnx_text(text)
    arrays = {
        "w": rng.integers(-128, 128, (8192, 256), np.int8),
        "s": rng.uniform(0.01, 0.1, 256).astype(np.float32),
    }
    for value in list(made.graph.inputs[1:]):
        value.const_value = ir.tensor(arrays[value.name or ""])
        made.graph.register_initializer(value)
    del made.graph.inputs[1:]
    seen: list[tuple[Choice, ...]] = []

    def first(key: str, options: tuple[Choice, ...]) -> Choice:
        assert "short=1" in key
        seen.append(options)
        return options[0]

    found = find_isa(isa)
    program = lower(made)
    mark(program, found, first)
    assert seen[0][0].width <= widest(8192, found.lanes)
