"""Operators of ONNX Runtime's domain, rewritten: the same values as ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from infer_runtime import Session
from infer_runtime.errors import UnsupportedOpError
from infer_tool.importers import ImportOptions, import_source
from infer_tool.importers.gate import check

R = np.random.default_rng(0)
DOMAIN = "com.microsoft"


def f(*shape: int) -> np.ndarray:
    return R.normal(size=shape).astype(np.float32)


def u8(*shape: int) -> np.ndarray:
    return R.integers(0, 256, shape).astype(np.uint8)


def i8(*shape: int) -> np.ndarray:
    return R.integers(-128, 128, shape).astype(np.int8)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def q(scale: float, zero: int, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    return np.float32(scale), dtype(zero)


def nbits(bits: int, rows: int, columns: int, size: int, zeros: bool) -> list:
    blocks = -(-columns // size)
    given = [u8(rows, blocks, size * bits // 8), np.abs(f(rows * blocks))]
    return [*given, u8(rows * (-(-blocks * bits // 8)))] if zeros else given


MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
PICTURE, FILTER = f(1, 3, 6, 6), f(4, 3, 3, 3)
SENTENCE, QKV = f(2, 5, 8), [f(8, 24), f(24)]
A, B, C = q(0.02, 120), q(0.03, 99), q(0.05, 130)
COLUMNS = np.float32([0.1, 0.2, 0.3, 0.4, 0.5])

# Name: operator, feeds (arrays) and constants ([array]) in order, None for what is left out.
CASES: dict[str, tuple] = {
    "gelu": ("Gelu", [f(2, 3)], {}),
    "bias gelu": ("BiasGelu", [f(2, 3), [f(3)]], {}),
    "fast gelu": ("FastGelu", [f(2, 3), [f(3)]], {}),
    "fast gelu without bias": ("FastGelu", [f(2, 3)], {}),
    "quick gelu": ("QuickGelu", [f(2, 3)], {"alpha": 1.5}),
    "skip layer norm": ("SkipLayerNormalization", [f(2, 3, 8), f(2, 3, 8), [f(8)], [f(8)], [f(8)]],
                        {"epsilon": 1e-5, "outputs": ["y", "", "", "total"]}),
    "skip simplified": ("SkipSimplifiedLayerNormalization", [f(2, 3, 8), f(2, 3, 8), [f(8)]],
                        {"epsilon": 1e-5, "outputs": ["y", "", "", "total"]}),
    "simplified": ("SimplifiedLayerNormalization", [f(2, 3, 8), [f(8)]],
                   {"domain": "", "epsilon": 1e-5, "axis": -1}),
    "early layer norm": ("LayerNormalization", [f(2, 3, 8), [f(8)], [f(8)]],
                         {"domain": "", "epsilon": 1e-3, "axis": -1}),
    "embeddings": ("EmbedLayerNormalization",
                   [ints(*range(8)).reshape(2, 4), ints(0, 1, 0, 1, 1, 1, 0, 0).reshape(2, 4), [f(9, 8)],
                    [f(6, 8)], [f(2, 8)], [f(8)], [f(8)], MASK[:, 1:]], {"outputs": ["y", "lengths"]}),
    "conv leaky": ("FusedConv", [PICTURE, [FILTER], [f(4)]],
                   {"activation": "LeakyRelu", "activation_params": [0.3], "pads": [1, 1, 1, 1]}),
    "conv sum": ("FusedConv", [PICTURE, [FILTER], [f(4)], f(1, 4, 6, 6)], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "conv clip": ("FusedConv", [PICTURE, [FILTER]], {"activation": "Clip", "activation_params": [-0.5, 0.5]}),
    "conv hard": ("FusedConv", [PICTURE, [FILTER]], {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}),
    "fused matmul": ("FusedMatMul", [f(2, 4, 3), [f(2, 5, 4)]], {"transA": 1, "transB": 1, "alpha": 0.5}),
    "fused gemm": ("FusedGemm", [f(4, 3), [f(5, 3)], [f(5)]],
                   {"transB": 1, "activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 0.5, "beta": 2.0}),
    "attention": ("Attention", [SENTENCE, [QKV[0]], [QKV[1]]], {"num_heads": 2}),
    "attention causal": ("Attention", [SENTENCE, [QKV[0]], [QKV[1]]], {"num_heads": 2, "unidirectional": 1}),
    "attention mask": ("Attention", [SENTENCE, [QKV[0]], [QKV[1]], MASK], {"num_heads": 2}),
    "attention lengths": ("Attention", [SENTENCE, [QKV[0]], [QKV[1]], ints(3, 5)], {"num_heads": 2}),
    "attention square mask": ("Attention", [SENTENCE, [QKV[0]], [QKV[1]], np.tril(np.ones((2, 5, 5), np.int32))],
                              {"num_heads": 2}),
    "attention past": ("Attention", [SENTENCE, [QKV[0]], [QKV[1]], None, f(2, 2, 2, 3, 4)],
                       {"num_heads": 2, "unidirectional": 1, "outputs": ["y", "present"]}),
    "attention bias": ("Attention", [SENTENCE, [QKV[0]], [QKV[1]], None, None, f(2, 2, 5, 5)], {"num_heads": 2, "scale": 0.3}),
    "attention sizes": ("Attention", [SENTENCE, [f(8, 28)], [f(28)]], {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 12]}),
    "quantised attention": ("QAttention", [u8(2, 5, 8), [i8(8, 24)], [QKV[1]], [np.float32(0.01)], [np.float32(0.02)], MASK,
                                           [np.uint8(120)], [np.int8(0)]], {"num_heads": 2}),
    "multi head": ("MultiHeadAttention", [f(2, 5, 8), f(2, 6, 8), f(2, 6, 8), [f(24)]], {"num_heads": 2}),
    "multi head masks": ("MultiHeadAttention", [f(2, 5, 8), f(2, 5, 8), f(2, 5, 8), None, MASK, f(1, 2, 5, 5)], {"num_heads": 2}),
    "multi head past": ("MultiHeadAttention",
                        [f(2, 5, 8), f(2, 5, 8), f(2, 5, 8), None, None, None, f(2, 2, 3, 4), f(2, 2, 3, 4)],
                        {"num_heads": 2, "unidirectional": 1, "outputs": ["y", "k", "v"]}),
    "rotary": ("RotaryEmbedding", [f(2, 5, 12), np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]), [f(9, 3)], [f(9, 3)]], {}),
    "rotary in heads": ("RotaryEmbedding", [f(2, 2, 5, 8), np.array([3]), [f(9, 3)], [f(9, 3)]],
                        {"rotary_embedding_dim": 6, "num_heads": 2}),
    "rotary interleaved": ("RotaryEmbedding", [f(2, 5, 12), np.array([3]), [f(9, 3)], [f(9, 3)]], {"interleaved": 1}),
    "q add": ("QLinearAdd", [u8(2, 50), *A, u8(2, 50), *B, *C], {}),
    "q mul": ("QLinearMul", [i8(2, 50), *q(0.02, 12, np.int8), i8(2, 50), *q(0.03, -9, np.int8), *q(0.05, 3, np.int8)], {}),
    "q sigmoid": ("QLinearSigmoid", [u8(2, 50), *A, *q(1 / 256, 0)], {}),
    "q leaky": ("QLinearLeakyRelu", [u8(2, 50), *A, *q(0.03, 100)], {"alpha": 0.2}),
    "q average": ("QLinearAveragePool", [u8(1, 6, 6, 3), *A, *B],
                  {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "channels_last": 1}),
    "q global average": ("QLinearGlobalAveragePool", [u8(1, 3, 6, 6), *A, *B], {}),
    "q global average last": ("QLinearGlobalAveragePool", [u8(1, 6, 6, 3), *A, *B], {"channels_last": 1}),
    "q concat": ("QLinearConcat", [*C, u8(2, 5), *A, u8(2, 4), *B], {"axis": 1}),
    "q softmax": ("QLinearSoftmax", [u8(2, 50), *A, *q(1 / 256, 0)], {"axis": -1, "opset": 13}),
    "q where": ("QLinearWhere", [R.integers(0, 2, (2, 5)).astype(bool), u8(2, 5), *A, u8(2, 5), *B, *C], {}),
    "q conv last": ("QLinearConv", [u8(1, 6, 6, 3), *A, [i8(4, 3, 3, 3)], [np.full(4, 0.01, np.float32)],
                                    [np.zeros(4, np.int8)], *q(0.2, 100), [ints(-9, 30, 99, 5)]],
                    {"channels_last": 1, "pads": [1, 1, 1, 1]}),
    "max pool last": ("NhwcMaxPool", [u8(1, 6, 6, 3)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "dynamic matmul": ("DynamicQuantizeMatMul", [f(2, 3, 4), [i8(4, 5)], [COLUMNS], [np.arange(5, dtype=np.int8)], [f(5)]], {}),
    "matmul to float": ("MatMulIntegerToFloat",
                        [u8(3, 4), [i8(4, 5)], [np.float32(0.1)], [COLUMNS], [np.uint8(7)], [np.arange(5, dtype=np.int8)], [f(5)]], {}),
    "q gemm": ("QGemm", [u8(3, 4), *q(0.1, 7), [i8(5, 4)], [COLUMNS], [np.zeros(5, np.int8)], [ints(9, -9, 5, 0, 2)], *q(5, 100)],
               {"transB": 1}),
    "q gemm to float": ("QGemm", [u8(3, 4), *q(0.1, 7), [i8(5, 4)], [np.float32(0.3)], [np.int8(0)]], {"transB": 1, "alpha": 0.5}),
    "quantize 16": ("QuantizeLinear", [f(3, 4), *q(0.001, 30000, np.uint16)], {"opset": 21}),
    "dequantize 16": ("DequantizeLinear", [R.integers(-999, 999, (3, 4)).astype(np.int16), [COLUMNS[:3]],
                                           [np.int16([1, 2, 3])]], {"axis": 0}),
    "quantize one element": ("QuantizeLinear", [f(3, 4), [np.float32([0.01])], [np.uint8([128])]], {}),
    "4 bits": ("MatMulNBits", [f(2, 3, 40), *[[a] for a in nbits(4, 6, 40, 16, False)]], {"K": 40, "N": 6, "bits": 4, "block_size": 16}),
    "4 bits with zeros": ("MatMulNBits", [f(2, 3, 64), *[[a] for a in nbits(4, 6, 64, 16, True)]],
                          {"K": 64, "N": 6, "bits": 4, "block_size": 16}),
    "8 bits": ("MatMulNBits", [f(2, 3, 64), *[[a] for a in nbits(8, 6, 64, 32, True)]], {"K": 64, "N": 6, "bits": 8, "block_size": 32}),
    "trilu": ("Trilu", [f(4, 4), [np.int64(1)]], {"upper": 1}),
    "pad": ("Pad", [f(2, 3), [np.array([0, 1, 1, 2])], [np.float32(0.5)]], {}),
    "expand dims": ("ExpandDims", [f(2, 3), [np.int32(1)]], {}),
}  # fmt: skip
# One step of the output: ONNX Runtime sums these in another order than any float would round.
ONE_STEP = {"q average"}


def _is_constant(value: object) -> bool:
    """Scales and zero points are scalars: constants as well."""
    return isinstance(value, list) or (value is not None and np.ndim(value) == 0)


def _node(name: str, values: list, op: str, attributes: dict) -> onnx.NodeProto:
    rest = {k: v for k, v in attributes.items() if k not in ("outputs", "domain")}
    opset = rest.pop("opset", None) if op != "QLinearSoftmax" else None
    assert opset in (None, 21)
    given = rest.pop("opset", None)
    node = helper.make_node(
        op, ["" if v is None else f"i{n}" for n, v in enumerate(values)],
        attributes.get("outputs", ["y"]), name=name, domain=attributes.get("domain", DOMAIN), **rest,
    )  # fmt: skip
    if given is not None:
        node.attribute.append(helper.make_attribute("opset", given))
    return node


def _model(name: str) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    op, values, attributes = CASES[name]
    node = _node("n", values, op, attributes)
    names = {f"i{n}": v for n, v in enumerate(values) if v is not None}
    constants = {k: v[0] if isinstance(v, list) else v for k, v in names.items() if _is_constant(v)}
    feeds = {k: v for k, v in names.items() if k not in constants}
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()],
        [helper.make_value_info(o, onnx.TypeProto()) for o in node.output if o],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 14), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), feeds


def _exact(source: Path | bytes, feeds: dict) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(source, options).run(None, feeds)


@pytest.mark.parametrize("name", CASES)
def test_the_rewrite_computes_what_onnx_runtime_does(tmp_path, name) -> None:
    proto, feeds = _model(name)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    wanted = _exact(path, feeds)
    model = import_source(str(path), ImportOptions()).model
    assert {node.domain for node in model.graph.all_nodes()} == {""}
    assert set(model.opset_imports) == {""}
    ours = list(Session(model).run(feeds).values())
    emitted = _exact(ir.to_proto(model).SerializeToString(), feeds)
    for got in (ours, emitted):
        for have, want in zip(got, wanted, strict=True):
            assert (have.shape, have.dtype) == (want.shape, want.dtype)
            error = np.abs(have.astype(np.float64) - want)
            limit = 1e-5 * max(1, np.abs(want).max()) if want.dtype.kind == "f" else 0
            assert error.max() <= (1 if name in ONE_STEP else limit)


def _with_unknown(path: Path, op: str, inputs: int) -> Path:
    names = [f"x{i}" for i in range(inputs)]
    nodes = [helper.make_node(op, names, [f"y{i}"], name=f"n{i}", domain=DOMAIN) for i in range(2)]
    info = lambda n: helper.make_tensor_value_info(n, 1, [1, 3, 4])  # noqa: E731
    graph = helper.make_graph(nodes, "g", [info(n) for n in names], [info("y0"), info("y1")])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.parametrize(("op", "inputs"), [("GroupQueryAttention", 3), ("Attention", 3)])
def test_what_has_no_rewrite_stays_and_is_refused_with_its_count(tmp_path, op, inputs) -> None:
    """The second: an operator that has one, with attributes that it does not cover."""
    path = _with_unknown(tmp_path / "m.onnx", op, inputs)
    model = import_source(str(path), ImportOptions()).model
    assert [node.op_type for node in model.graph] == [op, op]
    with pytest.raises(
        UnsupportedOpError, match=rf"com\.microsoft::{op} \(2x\), first at node 'n0'"
    ):
        check(model, str(path))


def test_contrib_nodes_inside_a_branch(tmp_path) -> None:
    path = tmp_path / "m.onnx"
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x"], ["o"], domain=domain)], "b", [],
            [helper.make_tensor_value_info("o", 1, [2])],
        ) for op, domain in (("QuickGelu", DOMAIN), ("Neg", ""))
    ]  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", 1, [2]), helper.make_tensor_value_info("c", 9, [])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    model = import_source(str(path), ImportOptions()).model
    for c in (True, False):
        feeds = {"x": np.float32([1, -2]), "c": np.array(c)}
        got = Session(model).run(feeds)["y"]
        np.testing.assert_allclose(got, _exact(path, feeds)[0], rtol=0, atol=1e-6)
