"""BatchNormalization, scales and biases fold; and where they must not."""

from __future__ import annotations

import numpy as np
import pytest

from passes.fold_affine import FoldAffine
from passes.fold_batchnorm import FoldBatchNorm
from passes.graph import MAX_GROWTH_BYTES
from passes.pipeline import optimize

R = np.random.default_rng(1)


def _f(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) + 0.3).astype(np.float32)


def _statistics(count: int) -> dict[str, np.ndarray]:
    return {"g": _f(count), "b": _f(count), "m": _f(count), "v": np.abs(_f(count)) + 0.1}


BN = "float[{c}] g, float[{c}] b, float[{c}] m, float[{c}] v"


@pytest.mark.parametrize(
    ("node", "shape", "weight", "channels"),
    [
        ("Conv<pads=[1,1,1,1]>(x, w)", "1,4,6,6", (8, 4, 3, 3), 8),
        ("Conv<group=4>(x, w)", "1,4,6,6", (8, 1, 3, 3), 8),
        ("Conv(x, w)", "1,4,9", (8, 4, 3), 8),
        ("ConvTranspose<strides=[2,2]>(x, w)", "1,4,5,5", (4, 6, 2, 2), 6),
        ("ConvTranspose<group=2>(x, w)", "1,4,5,5", (4, 3, 2, 2), 6),
        ("Gemm(x, w)", "3,4", (4, 5), 5),
        ("Gemm<transB=1>(x, w)", "3,4", (5, 4), 5),
    ],
)
def test_batchnorm_folds(apply_pass, make, node, shape, weight, channels) -> None:
    weight_type = ",".join(map(str, weight))
    text = f"""t (float[{shape}] x, float[{weight_type}] w, {BN.format(c=channels)}) => (float[] y)
    {{ c = {node}  y = BatchNormalization<epsilon=0.01>(c, g, b, m, v) }}"""
    model = make(text, w=_f(*weight), **_statistics(channels))
    ops, outcome, copy = apply_pass(FoldBatchNorm(), model)
    assert ops == [node.split("(")[0].split("<")[0]]
    assert outcome.changes == 1
    assert copy.graph[0].name == "n0"


CONV = "c = Conv(x, w)"


@pytest.mark.parametrize(
    ("extra", "body", "reason"),
    [
        ("", f"{CONV}  y = BatchNormalization(c, g, b, m, v)  z = Relu(c)", "used 2 times"),
        ("", f"{CONV}  y = BatchNormalization(c, g, b, m, v)  z = Identity(y)", None),
        ("", "c = Relu(x)  y = BatchNormalization(c, g, b, m, v)  z = Relu(y)", "no Conv"),
    ],
)
def test_batchnorm_must_not(apply_pass, make, extra, body, reason) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}{extra}) =>
    (float[] y, float[] z) {{ {body} }}"""
    ops, outcome, _ = apply_pass(FoldBatchNorm(), make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    if reason is None:
        assert "BatchNormalization" not in ops
    else:
        assert "BatchNormalization" in ops
        assert reason in outcome.refusals[0].reason


def test_batchnorm_of_a_graph_output(apply_pass, make) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y, float[] c)
    {{ {CONV}  y = BatchNormalization(c, g, b, m, v) }}"""
    ops, outcome, _ = apply_pass(FoldBatchNorm(), make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    assert ops == ["Conv", "BatchNormalization"]
    assert "graph output" in outcome.refusals[0].reason


def test_batchnorm_with_a_weight_that_is_an_input(apply_pass, make) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y)
    {{ {CONV}  y = BatchNormalization(c, g, b, m, v) }}"""
    ops, outcome, _ = apply_pass(FoldBatchNorm(), make(text, **_statistics(4)))
    assert "BatchNormalization" in ops
    assert outcome.refusals[0].reason == "w is not a constant"


def test_batchnorm_shared_weight_keeps_the_other_user(apply_pass, make) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y, float[] z)
    {{ {CONV}  y = BatchNormalization(c, g, b, m, v)  z = Conv(x, w) }}"""
    ops, _, _ = apply_pass(FoldBatchNorm(), make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    assert ops == ["Conv", "Conv"]


SHARED = f"""t (float[1,16,6,6] x, float[16,16,3,3] w, {BN.format(c=16)}, float[16] h) =>
(float[] y, float[] z) {{{{ c = Conv(x, w)  y = BatchNormalization(c, g, b, m, v)  {{rest}} }}}}"""
LARGE = _f(16, 16, 3, 3)
assert LARGE.nbytes > MAX_GROWTH_BYTES


@pytest.mark.parametrize(
    "rest",
    [
        "z = Conv(x, w)",
        "d = Conv(x, w)  z = BatchNormalization(d, h, b, m, v)",
        "d = Conv(x, w)  z = BatchNormalization<epsilon=0.1>(d, g, b, m, v)",
        "d = Conv(x, w)  z = Mul(d, w)",
    ],
)
def test_large_shared_weight_is_not_stored_twice(make, rest) -> None:
    model = make(SHARED.format(rest=rest), w=LARGE, h=_f(16), **_statistics(16))
    outcome = FoldBatchNorm().apply(model)
    assert outcome.changes == 0
    assert "w is shared and would be stored twice" in {r.reason for r in outcome.refusals}


def test_twins_with_one_large_weight_fold_to_one_weight(make, ort_outputs) -> None:
    rest = "n = Neg(x)  d = Conv(n, w)  z = BatchNormalization(d, g, b, m, v)"
    model = make(SHARED.format(rest=rest), w=LARGE, h=_f(16), **_statistics(16))
    result = optimize(model).model
    assert [n.op_type for n in result.graph] == ["Conv", "Neg", "Conv"]
    assert len(result.graph.initializers) == 2
    feeds = {"x": _f(1, 16, 6, 6)}
    wanted, got = ort_outputs(model, feeds), ort_outputs(result, feeds)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-6 * np.abs(value).max())


def test_a_bias_may_fold_where_a_large_weight_is_shared(apply_pass, make) -> None:
    text = """t (float[1,16,6,6] x, float[16,16,3,3] w, float[16,1,1] k) => (float[] y, float[] z)
    { c = Conv(x, w)  y = Add(c, k)  z = Conv(x, w) }"""
    ops, _, copy = apply_pass(FoldAffine(), make(text, w=LARGE, k=_f(16, 1, 1)))
    assert ops == ["Conv", "Conv"]
    assert [n.inputs[1].name for n in copy.graph] == ["w", "w"]


def test_batchnorm_in_a_branch_with_an_outer_weight(apply_pass, make) -> None:
    text = f"""t (bool c, float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) =>
    (float[1,4,4,4] y, float[1,4,4,4] z)
    {{ z = Conv(x, w)
       y = If (c) <
        then_branch = th () => (float[1,4,4,4] p) {{ a = Conv(x, w)  p = BatchNormalization(a, g, b, m, v) }},
        else_branch = el () => (float[1,4,4,4] q) {{ a = Conv(x, w)  q = BatchNormalization(a, g, b, m, v) }}> }}"""
    model = make(text, w=_f(4, 4, 3, 3), **_statistics(4))
    _, outcome, copy = apply_pass(FoldBatchNorm(), model)
    assert outcome.changes == 2
    assert "BatchNormalization" not in {n.op_type for n in copy.graph.all_nodes()}


def test_conv_before_a_branch_stays_whole(apply_pass, make) -> None:
    text = f"""t (bool c, float[1,4,6,6] x, float[1,4,4,4] k, float[4,4,3,3] w, {BN.format(c=4)}) =>
    (float[1,4,4,4] y)
    {{ a = Conv(x, w)
       y = If (c) <
        then_branch = th () => (float[1,4,4,4] p) {{ p = BatchNormalization(a, g, b, m, v) }},
        else_branch = el () => (float[1,4,4,4] q) {{ q = Exp(k) }}> }}"""
    _, outcome, _ = apply_pass(FoldBatchNorm(), make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    assert "different graphs" in outcome.refusals[0].reason


def test_training_batchnorm_stays(make) -> None:
    text = f"""t (float[2,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y)
    {{ c = Conv(x, w)  y, r, q = BatchNormalization<training_mode=1>(c, g, b, m, v) }}"""
    outcome = FoldBatchNorm().apply(make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    assert "inference form" in outcome.refusals[0].reason


def test_float64_folds_in_float64(apply_pass, make) -> None:
    text = """t (double[3,4] x, double[4,5] w, double[5] k) => (double[] y)
    { c = Gemm(x, w)  y = Mul(c, k) }"""
    generator = np.random.default_rng(2)
    model = make(text, w=generator.normal(size=(4, 5)), k=generator.normal(size=5))
    ops, _, copy = apply_pass(FoldAffine(), model, 1e-14)
    assert ops == ["Gemm"]
    assert copy.graph.initializers["w"].dtype.name == "DOUBLE"


@pytest.mark.parametrize(
    ("shape", "folds"), [("3", True), ("1,3", True), ("1", True), ("", True), ("3,1", False)]
)
def test_gemm_bias_of_one_value_for_each_column(apply_pass, make, shape, folds) -> None:
    """A square product: three rows and three columns, so that sizes do not tell them apart."""
    sizes = [int(s) for s in shape.split(",") if s]
    text = f"""t (float[3,4] x, float[4,3] w, float[{shape}] q, float[3] k) => (float[] y)
    {{ c = Gemm(x, w, q)  y = Mul(c, k) }}"""
    model = make(text, w=_f(4, 3), q=_f(*sizes) + np.float32(2), k=_f(3) + np.float32(2))
    assert apply_pass(FoldAffine(), model)[0] == (["Gemm"] if folds else ["Gemm", "Mul"])


def test_folded_weights_keep_their_names_and_nothing_is_left_over(apply_pass, make) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y)
    {{ {CONV}  y = BatchNormalization(c, g, b, m, v) }}"""
    result = optimize(make(text, w=_f(4, 4, 3, 3), **_statistics(4))).model
    assert sorted(result.graph.initializers) == ["c_bias", "w"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", ["8,1,1", "1,8,1,1", "1", ""])
def test_affine_folds(apply_pass, make, op, shape) -> None:
    sizes = [int(s) for s in shape.split(",") if s]
    text = f"""t (float[1,4,6,6] x, float[8,4,3,3] w, float[8] q, float[{shape}] k) => (float[] y)
    {{ c = Conv(x, w, q)  y = {op}(c, k) }}"""
    model = make(text, w=_f(8, 4, 3, 3), q=_f(8), k=_f(*sizes) + np.float32(2))
    ops, _, _ = apply_pass(FoldAffine(), model)
    assert ops == ["Conv"]


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_affine_folds_on_the_other_side(apply_pass, make, op) -> None:
    text = f"""t (float[3,4] x, float[4,5] w, float[5] k) => (float[] y)
    {{ c = Gemm(x, w)  y = {op}(k, c) }}"""
    assert apply_pass(FoldAffine(), make(text, w=_f(4, 5), k=_f(5)))[0] == ["Gemm"]


@pytest.mark.parametrize(
    ("op", "shape", "operands", "reason"),
    [
        ("Add", "6", "c, k", "one value for each channel"),
        ("Add", "8,6,6", "c, k", "one value for each channel"),
        ("Add", "2,8,1,1", "c, k", "one value for each channel"),
        ("Add", "1,1,8,1,1", "c, k", "one value for each channel"),
        ("Sub", "8,1,1", "k, c", None),
        ("Div", "8,1,1", "k, c", None),
    ],
)
def test_affine_must_not(apply_pass, make, op, shape, operands, reason) -> None:
    sizes = [int(s) for s in shape.split(",")]
    text = f"""t (float[1,4,8,8] x, float[8,4,3,3] w, float[{shape}] k) => (float[] y)
    {{ c = Conv(x, w)  y = {op}({operands}) }}"""
    ops, outcome, _ = apply_pass(FoldAffine(), make(text, w=_f(8, 4, 3, 3), k=_f(*sizes)))
    assert ops == ["Conv", op]
    assert [r.reason for r in outcome.refusals if reason and reason in r.reason] or reason is None


def test_a_sign_folds(apply_pass, make) -> None:
    text = "t (float[1,4,6,6] x, float[8,4,3,3] w) => (float[] y) { c = Conv(x, w)  y = Neg(c) }"
    assert apply_pass(FoldAffine(), make(text, w=_f(8, 4, 3, 3)))[0] == ["Conv"]


def test_division_by_zero_is_left_alone(make) -> None:
    text = """t (float[3,4] x, float[4,5] w, float[5] k) => (float[] y)
    { c = Gemm(x, w)  y = Div(c, k) }"""
    outcome = FoldAffine().apply(make(text, w=_f(4, 5), k=np.zeros(5, np.float32)))
    assert outcome.changes == 0
    assert "zero" in outcome.refusals[0].reason


@pytest.mark.parametrize(
    ("shape", "width", "ops", "reason"),
    [
        ("3,4", 5, ["Gemm"], None),
        ("2,5,4", 5, ["MatMul", "BatchNormalization"], "last axis"),  # axis 1 is another one
    ],
)
def test_batchnorm_of_a_product(apply_pass, make_known, shape, width, ops, reason) -> None:
    text = f"""t (float[{shape}] x, float[4,{width}] w, {BN.format(c=5)}) => (float[] y)
    {{ c = MatMul(x, w)  o = BatchNormalization(c, g, b, m, v)  y = Exp(o) }}"""
    model = make_known(text, w=_f(4, width), **_statistics(5))
    found, outcome, _ = apply_pass(FoldBatchNorm(), model)
    assert found == [*ops, "Exp"]
    assert reason is None or reason in outcome.refusals[0].reason


@pytest.mark.parametrize(
    ("body", "size", "folds"),
    [
        ("c = MatMul(x, w)  o = Mul(c, k)", "5", True),
        ("c = MatMul(x, w)  o = Div(c, k)", "1,1,5", True),
        ("c = MatMul(x, w)  o = Mul(k, c)", "1", True),
        ("c = MatMul(x, w)  o = Neg(c)", "5", True),
        ("c = MatMul(x, w)  o = Mul(c, k)", "3,1", False),
        ("c = MatMul(x, w)  o = Mul(c, k)", "1,1,1,5", False),  # one axis more
        ("c = MatMul(x, w)  o = Add(c, k)", "5", False),  # no bias to take it
        ("c = MatMul(x, u)  o = Mul(c, k)", "5", False),  # a stack of matrices
        ("c = MatMul(a, x)  o = Mul(c, k)", "4", False),  # weights on the left
        ("c = MatMul(x, w)  b = Mul(c, k)  o = Add(b, c)", "5", False),
    ],
)
def test_products_take_scales(apply_pass, make_known, body, size, folds) -> None:
    sizes = tuple(int(n) for n in size.split(","))
    text = f"""t (float[2,3,4] x, float[4,5] w, float[2,4,5] u, float[3,3] a, float[{size}] k) =>
    (float[] y) {{ {body}  y = Exp(o) }}"""
    constants = {"w": _f(4, 5), "u": _f(2, 4, 5), "a": _f(3, 3), "k": np.abs(_f(*sizes)) + 0.5}
    ops, _, _ = apply_pass(FoldAffine(), make_known(text, **constants))
    assert (ops == ["MatMul", "Exp"]) == folds
