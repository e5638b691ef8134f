"""Differences, seeded inputs, facts and the structural check."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session, TensorInfo
from infer_runtime.errors import MismatchError, ModelError, UsageError
from passes.compare import EQUAL, compare_outputs, difference, worst
from passes.facts import facts, macs_by_node, opset
from passes.feeds import random_feeds
from passes.verify import verify


def test_difference_by_hand() -> None:
    found = difference(np.float32([3, -4]), np.float32([3, -3]))
    assert (found.max_abs, found.max_rel, found.mean_abs) == (1.0, 0.25, 0.5)
    assert found.sqnr_db == pytest.approx(10 * math.log10(25))
    assert found.cosine == pytest.approx(21 / math.sqrt(25 * 18))


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("reference", "candidate", "equal"),
    [
        ([1, NAN], [1, NAN], True),
        ([1, INF], [1, INF], True),
        ([1, 2], [1, NAN], False),
        ([1, 2], [1, INF], False),
        ([1, NAN], [1, 2], False),
        ([1, INF], [1, -INF], False),
        ([1, INF], [1, NAN], False),
        ([NAN, NAN], [NAN, NAN], True),
        ([], [], True),
    ],
)
def test_nan_and_inf_must_agree(reference, candidate, equal) -> None:
    found = difference(np.float32(reference), np.float32(candidate))
    assert (found == EQUAL) if equal else (found.max_abs == found.max_rel == INF)


def test_an_error_beside_a_nan_of_both_is_seen() -> None:
    assert difference(np.float32([NAN, 2]), np.float32([NAN, 1])).max_rel == 0.5


def test_zeros_against_something() -> None:
    found = difference(np.zeros(2, np.float32), np.float32([0, 1]))
    assert found.max_abs == 1
    assert found.sqnr_db == -INF
    assert found.cosine == 0


def test_integers_booleans_and_texts() -> None:
    assert difference(np.uint8([1, 255]), np.uint8([1, 254])).max_abs == 1, "no wrap-around"
    assert difference(np.array([True]), np.array([False])).max_abs == 1
    assert difference(np.array(["a"], object), np.array(["a"], object)) == EQUAL
    assert difference(np.array(["a"], object), np.array(["b"], object)).max_rel == INF


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        ({}, "'y' is missing"),
        ({"y": np.zeros((1, 2), np.float32)}, "expected float32"),
        ({"y": np.zeros(2, np.float64)}, "is float64"),
    ],
)
def test_outputs_of_another_form_are_a_mismatch(candidate, message) -> None:
    with pytest.raises(MismatchError, match=message):
        compare_outputs({"y": np.zeros(2, np.float32)}, candidate)


def test_the_worst_output() -> None:
    reference = {"a": np.float32([1]), "b": np.float32([100])}
    found = compare_outputs(reference, {"a": np.float32([1.5]), "b": np.float32([101])})
    assert worst(found) is found["a"]
    assert worst({}) is EQUAL


def _info(name: str, shape: tuple[int | str | None, ...], dtype: str) -> TensorInfo:
    return TensorInfo(name, shape, np.dtype(dtype))


def test_feeds_fit_the_inputs_and_repeat() -> None:
    inputs = [_info("x", ("N", 3, None), "float32"), _info("i", (50,), "int64"),
              _info("b", (50,), "bool"), _info("s", (), "float16")]  # fmt: skip
    first, again = random_feeds(inputs, 4), random_feeds(inputs, 4)
    assert {n: (a.shape, str(a.dtype)) for n, a in first.items()} == {
        "x": ((1, 3, 1), "float32"), "i": ((50,), "int64"), "b": ((50,), "bool"),
        "s": ((), "float16"),
    }  # fmt: skip
    assert all(np.array_equal(first[n], again[n]) for n in first)
    assert not np.array_equal(first["x"], random_feeds(inputs, 5)["x"])
    assert set(first["i"]) == {0, 1, 2, 3}
    assert set(first["b"]) == {False, True}


def test_feeds_have_a_mean() -> None:
    x = random_feeds([_info("x", (100, 100), "float32")])["x"]
    assert abs(float(x.mean()) - 0.25) < 0.05
    assert abs(float(x.std()) - 1) < 0.05


def test_one_symbol_has_one_size() -> None:
    inputs = [_info("x", ("N", 3), "float32"), _info("m", ("N", "T"), "int64")]
    feeds = random_feeds(inputs, shapes={"x": (5, 3)})
    assert (feeds["x"].shape, feeds["m"].shape) == ((5, 3), (5, 1))


@pytest.mark.parametrize("shape", [(2, 4), (2,), (2, 3, 1)])
def test_shapes_that_do_not_fit(shape) -> None:
    with pytest.raises(UsageError, match="'x'"):
        random_feeds([_info("x", ("N", 3), "float32")], shapes={"x": shape})


def _ones(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def test_macs_of_a_transposed_convolution(make) -> None:
    """Each of 4 * 5 * 5 inputs meets 3 output channels of its group at 2 * 2 taps."""
    text = """t (float[1,4,5,5] x, float[4,3,2,2] w) => (float[] y)
    { y = ConvTranspose<group=2, strides=[2,2]>(x, w) }"""
    assert macs_by_node(make(text, w=_ones(4, 3, 2, 2))) == {"n0": 4 * 25 * 3 * 4}


def test_quantised_macs_are_those_of_the_float_model(make) -> None:
    text = """t (float[1,4] x, int8[4,6] q, float s, float a, uint8 z) => (float[] y)
    { w = DequantizeLinear(q, s)  i = QuantizeLinear(x, a, z)  f = DequantizeLinear(i, a, z)
      y = MatMul(f, w) }"""
    model = make(
        text, q=_ones(4, 6, dtype=np.int8), s=np.float32(1), a=np.float32(1), z=np.uint8(3)
    )
    assert macs_by_node(model) == {"n3": 24}


def test_integer_macs(make) -> None:
    text = """t (uint8[2,4] x, int8[4,6] w) => (int32[2,6] y) { y = MatMulInteger(x, w) }"""
    assert macs_by_node(make(text, w=_ones(4, 6, dtype=np.int8))) == {"n0": 48}


def test_macs_at_given_sizes(make) -> None:
    text = "t (float[N,4] x, float[4,6] w) => (float[N,6] y) { y = MatMul(x, w) }"
    model = make(text, w=_ones(4, 6))
    assert macs_by_node(model) == {"n0": 24}
    assert macs_by_node(model, {"x": (3, 4)}) == {"n0": 72}
    assert [str(d) for d in model.graph.outputs[0].shape] == ["N", "6"], "the model is unchanged"


def test_facts_count_all_levels(make) -> None:
    text = """t (bool c, float[2] x, float[2] k, float e) => (float[2] y)
    { a = Mul(x, e)
      y = If (c) <then_branch = th () => (float[2] p) { d = Constant<value = float[3] {1,2,3}>()  p = Add(a, k) },
                  else_branch = el () => (float[2] q) { q = Abs(a) }> }"""
    found = facts(make(text, k=_ones(2), e=np.float32(2)))
    assert found.nodes == 4, "Constants are data"
    assert found.parameters == 5, "a scalar is no parameter"
    assert found.weight_bytes == 24
    assert opset(make(text)) == 20


TEXT = """t (bool c, float[2] x, float[2] k) => (float[2] y)
{ a = Neg(x)  b = Add(a, k)
  y = If (c) <then_branch = th () => (float[2] p) { p = Relu(b) },
              else_branch = el () => (float[2] q) { q = Abs(b) }> }"""


def _untyped_output(model: ir.Model) -> None:
    model.graph.outputs[0].type = None


def _no_data(model: ir.Model) -> None:
    model.graph.initializers["k"].const_value = None


def _unregistered(model: ir.Model) -> None:
    del model.graph.initializers["k"]


def _unsorted(model: ir.Model) -> None:
    first = model.graph[0]
    model.graph.remove(first)
    model.graph.insert_after(model.graph[0], first)


def _same_node_name(model: ir.Model) -> None:
    model.graph[1].name = model.graph[0].name


def _unknown_domain(model: ir.Model) -> None:
    model.graph[0].domain = "nowhere"


def _later_operator(model: ir.Model) -> None:
    model.graph[0].op_type = "Swish"  # of opset 24


def _output_of_nobody(model: ir.Model) -> None:
    model.graph.outputs[0] = ir.Value(name="w", type=ir.TensorType(ir.DataType.FLOAT))


def _outer_name_in_a_branch(model: ir.Model) -> None:
    next(g for g in model.graphs() if g is not model.graph)[0].outputs[0].name = "a"


def _removed_before_a_branch(model: ir.Model) -> None:
    model.graph.remove(model.graph[1])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_untyped_output, "output 'y' has no type"),
        (_no_data, "initialiser 'k' has no data"),
        (_unregistered, "uses 'k'"),
        (_unsorted, "uses 'a'"),
        (_same_node_name, "two nodes are named 'n0'"),
        (_unknown_domain, "'nowhere', which has no opset"),
        (_later_operator, "no operator ai.onnx::Swish at opset 20"),
        (_output_of_nobody, "output 'w' is computed by no node"),
        (_outer_name_in_a_branch, "two values are named 'a'"),
        (_removed_before_a_branch, "uses 'b'"),
    ],
)
def test_verify_names_what_is_wrong(make, harm, message) -> None:
    model = make(TEXT, k=_ones(2))
    verify(model)
    harm(model)
    with pytest.raises(ModelError, match=message):
        verify(model)


def test_a_valid_model_of_many_nodes_is_valid(make) -> None:
    body = "  ".join(f"t{i + 1} = Relu(t{i})" for i in range(500))
    model = make(f"t (float[2] t0) => (float[2] t500) {{ {body} }}")
    verify(model)
    assert Session(model).run({"t0": _ones(2)})["t500"].tolist() == [1, 1]
