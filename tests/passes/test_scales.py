"""Bounds, scales and products; and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from passes.fold_affine_before import FoldAffineBefore
from passes.lift_scales import LiftScales
from passes.matmul_to_gemm import MatMulToGemm
from passes.merge_clips import MergeClips
from passes.merge_scales import MergeScales
from passes.reduce_strength import ReduceStrength

R = np.random.default_rng(3)


def _f(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) + 0.3).astype(np.float32)


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("a = Relu(x)  y = Relu(a)", ["Relu"]),
        ("a = Relu(x)  y = Clip(a, l, h)", ["Clip"]),
        ("a = Clip(x, l)  y = Relu(a)", ["Relu"]),
        ("a = Clip(x, , h)  y = Clip(a, l)", ["Clip"]),
        ("a = Clip(x, h)  y = Clip(a, , l)", ["Clip"]),  # everything becomes l
        ("a = Relu(x)  b = Neg(a)  y = Relu(b)", ["Relu", "Neg", "Relu"]),
        ("a = Clip(x, v)  y = Relu(a)", ["Clip", "Relu"]),
        ("a = Relu(x)  b = Clip(a, l, h)  y = Add(a, b)", ["Relu", "Clip", "Add"]),
    ],
)
def test_bounds_merge(apply_pass, make_known, body, ops) -> None:
    text = f"t (float[9] x, float l, float h, float v) => (float[] y) {{ {body} }}"
    model = make_known(text.replace("Clip(x, l)", "Clip(x, n)").replace("float l", "float n, float l"),
                       n=np.float32(-1), l=np.float32(0.1), h=np.float32(0.7))  # fmt: skip
    assert apply_pass(MergeClips(), model)[0] == ops


@pytest.mark.parametrize(
    ("body", "kind", "count"),
    [
        ("a = Mul(x, k)  y = Mul(l, a)", "float", 1),
        ("a = Div(x, k)  y = Div(a, l)", "float", 1),
        ("a = Mul(x, k)  y = Div(a, l)", "float", 1),
        ("a = Add(k, x)  y = Sub(a, l)", "float", 1),
        ("a = Sub(x, k)  y = Add(a, v)", "double", 1),
        ("a = Sub(k, x)  y = Add(a, l)", "float", 2),
        ("a = Div(k, x)  y = Mul(a, l)", "float", 2),
        ("a = Add(x, k)  y = Mul(a, l)", "float", 2),
        ("a = Mul(x, k)  y = Mul(a, l)", "int64", 2),
        ("a = Mul(x, v)  y = Mul(a, c)", "float", 2),  # v * c is a matrix
        ("a = Mul(x, k)  b = Mul(a, l)  y = Add(a, b)", "float", 3),
        ("a = Mul(x, t)  y = Mul(a, t)", "float", 2),  # t * t underflows
    ],
)
def test_constants_in_a_row_merge(apply_pass, make_known, body, kind, count) -> None:
    text = f"""t ({kind}[3,3] x, {kind} k, {kind}[1] l, {kind}[3] v, {kind}[3,1] c, {kind} t) =>
    ({kind}[] y) {{ {body} }}"""
    dtype = {"float": np.float32, "double": np.float64, "int64": np.int64}[kind]
    model = make_known(
        text, k=np.array(3, dtype), l=np.array([7], dtype), v=np.array([1, 2, 3], dtype),
        c=np.array([[4], [5], [6]], dtype), t=np.array(1e-30, dtype),
    )  # fmt: skip
    assert len(apply_pass(MergeScales(), model)[0]) == count


@pytest.mark.parametrize(
    ("body", "kind", "op"),
    [
        ("y = Pow(x, two)", "float", "Mul"),
        ("y = Div(x, e)", "float", "Mul"),
        ("y = Pow(x, three)", "float", "Pow"),
        ("y = Div(x, three)", "float", "Div"),
        ("y = Div(x, two)", "int64", "Div"),
        ("y = Div(two, x)", "float", "Div"),
        ("y = Div(x, tiny)", "float", "Div"),  # its reciprocal has lost digits
    ],
)
def test_cheaper_operators_with_equal_bits(apply_pass, make_known, body, kind, op) -> None:
    text = f"t ({kind}[3] x, {kind} two, {kind} three, {kind}[3] e, {kind} tiny) => ({kind}[3] y)"
    dtype = {"float": np.float32, "int64": np.int64}[kind]
    model = make_known(
        f"{text} {{ {body} }}", two=np.array(2, dtype), three=np.array(3, dtype),
        e=np.array([4, 0.5, -8] if kind == "float" else [1, 1, 1], dtype),
        tiny=np.array(2.0**127 if kind == "float" else 1, dtype),
    )  # fmt: skip
    assert apply_pass(ReduceStrength(), model, 0 if op == "Mul" else 1e-6)[0] == [op]


@pytest.mark.parametrize(
    ("shapes", "goes"),
    [
        (("3,4", "4,5", "5"), True),
        (("N,4", "4,5", "1,5"), True),
        (("3,4", "4,5", ""), True),
        (("3,4", "4,5", "3,1"), True),
        (("1,4", "4,5", "3,5"), False),  # the bias is larger than the product
        (("2,3,4", "4,5", "5"), False),
        (("3,4", "4,1", "5"), False),
    ],
)
def test_products_with_a_bias_are_gemms(apply_pass, make_known, shapes, goes) -> None:
    a, b, c = shapes
    c = f"[{c}]" if c else ""
    text = f"""t (float[{a}] a, float[{b}] b, float{c} c) => (float[] y)
    {{ m = MatMul(a, b)  y = Add(c, m) }}"""
    ops, _, _ = apply_pass(MatMulToGemm(), make_known(text))
    assert ops == (["Gemm"] if goes else ["MatMul", "Add"])


@pytest.mark.parametrize(
    "body", ["z = MatMul(a, b)  y = Add(z, c)", "m = MatMul(a, b)  y = Add(m, c)  z = Neg(m)"]
)
def test_a_product_that_others_see_stays(apply_pass, make_known, body) -> None:
    text = f"t (float[3,4] a, float[4,5] b, float[5] c) => (float[] y, float[] z) {{ {body} }}"
    assert "MatMul" in apply_pass(MatMulToGemm(), make_known(text))[0]


def test_integer_products_stay(apply_pass, make_known) -> None:
    text = """t (int32[3,4] a, int32[4,5] b, int32[5] c) => (int32[3,5] y)
    { m = MatMul(a, b)  y = Add(m, c) }"""
    assert apply_pass(MatMulToGemm(), make_known(text))[0] == ["MatMul", "Add"]


BEFORE = """t (float[2,4,6,6] x, float[6,{i},3,3] w, float[6] q, float[4,1,1] k, float s, float[6] r,
float[4] g, float[4] b, float[4] m, float[4] v) => (float[] y, float[] z) {{ {body} }}"""
NORMALISE = "a = BatchNormalization(x, g, b, m, v)"


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("a = Mul(x, k)  y = Conv<pads=[1,1,1,1]>(a, w, q)  z = Neg(x)", ["Conv", "Neg"]),
        ("a = Div(x, s)  y = Conv(a, w)  z = Neg(x)", ["Conv", "Neg"]),
        ("a = Add(k, x)  y = Conv(a, w)  z = Neg(x)", ["Conv", "Neg"]),
        ("a = Sub(x, k)  y = Conv(a, w, q)  z = Neg(x)", ["Conv", "Neg"]),
        (f"{NORMALISE}  y = Conv(a, w, q)  z = Neg(x)", ["Conv", "Neg"]),
        ("a = Add(k, x)  y = Conv<pads=[1,1,1,1]>(a, w, q)  z = Neg(x)", ["Add", "Conv", "Neg"]),
        (
            f"{NORMALISE}  y = Conv<pads=[1,0,0,0]>(a, w)  z = Neg(x)",
            ["BatchNormalization", "Conv", "Neg"],
        ),
        ("a = Mul(x, k)  y = Conv(a, w)  z = Neg(a)", ["Mul", "Conv", "Neg"]),
        ("a = Mul(x, r)  y = Conv(a, w)  z = Neg(x)", ["Mul", "Conv", "Neg"]),  # along the width
        ("z = Mul(x, k)  y = Conv(z, w)", ["Mul", "Conv"]),
        ("a = Sub(k, x)  y = Conv(a, w)  z = Neg(x)", ["Sub", "Conv", "Neg"]),
    ],
)
@pytest.mark.parametrize("group", [1, 2])
def test_scales_fold_into_the_next_convolution(apply_pass, make_known, body, ops, group) -> None:
    body = (
        body.replace("Conv(", "Conv<>(")
        .replace("Conv<", f"Conv<group={group}, ")
        .replace(", >", ">")
    )
    model = make_known(
        BEFORE.format(i=4 // group, body=body), w=_f(6, 4 // group, 3, 3), q=_f(6), k=_f(4, 1, 1) + 2,
        s=np.float32(3), r=_f(6), g=_f(4), b=_f(4), m=_f(4), v=np.abs(_f(4)) + 1,
    )  # fmt: skip
    assert apply_pass(FoldAffineBefore(), model)[0] == ops


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("a = Mul(x, k)  y = Gemm(a, w, q)", ["Gemm"]),
        ("a = Add(x, k)  y = Gemm<transB=1>(a, u)", ["Gemm"]),
        ("a = Sub(x, k)  y = Gemm<beta=2.0>(a, w, q)", ["Sub", "Gemm"]),
        ("a = Mul(x, k)  y = MatMul(a, w)", ["MatMul"]),
        ("a = Add(x, k)  y = MatMul(a, w)", ["Add", "MatMul"]),
        ("a = Mul(x, h)  y = MatMul(a, w)", ["Mul", "MatMul"]),  # h is an input
        ("a = Mul(x, k)  y = Gemm<transA=1>(a, w)", ["Mul", "Gemm"]),
        ("a = Mul(w, k)  y = MatMul(x, a)", ["Mul", "MatMul"]),
    ],
)
def test_scales_fold_into_the_next_product(apply_pass, make_known, body, ops) -> None:
    text = f"""t (float[4,4] x, float[4,4] w, float[5,4] u, float[4] q, float[4] k, float[4] h) =>
    (float[] y) {{ {body} }}"""
    model = make_known(text, w=_f(4, 4), u=_f(5, 4), q=_f(4), k=_f(4) + 2)
    assert apply_pass(FoldAffineBefore(), model)[0] == ops


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("c = Conv(x, w)  r = Squeeze(c, a)  y = Neg(r)", ["Conv", "Neg", "Squeeze"]),
        ("c = Conv(x, w)  r = Squeeze(c, a)  y = Mul(k, r)", ["Conv", "Mul", "Squeeze"]),
        ("c = Conv(x, w)  r = Squeeze(c, a)  t = Transpose<perm=[0,2,1]>(r)  y = Div(t, k)",
         ["Conv", "Div", "Squeeze", "Transpose"]),
        ("c = Conv(x, w)  r = Squeeze(c, a)  y = Div(k, r)", ["Conv", "Squeeze", "Div"]),
        ("c = Conv(x, w)  r = Squeeze(c, a)  y = Mul(r, v)", ["Conv", "Squeeze", "Mul"]),
        ("c = Conv(x, w)  r = Squeeze(c, a)  y = Mul(r, d)", ["Conv", "Squeeze", "Mul"]),
        ("c = Relu(x)  r = Squeeze(c, a)  y = Neg(r)", ["Relu", "Squeeze", "Neg"]),
        ("c = Conv(x, w)  r = Squeeze(c, a)  n = Neg(r)  y = Add(n, r)",
         ["Conv", "Squeeze", "Neg", "Add"]),
        ("c = Conv(x, w)  r = Squeeze(c, a)  n = Neg(r)  s = ReduceSum<keepdims=0>(c)  y = Add(n, s)",
         ["Conv", "Squeeze", "Neg", "ReduceSum", "Add"]),
    ],
)  # fmt: skip
def test_a_factor_moves_to_the_convolution(apply_pass, make_known, body, ops) -> None:
    text = f"""t (float[1,2,1,5] x, float[3,2,1,2] w, int64[1] a, float k, float[4] v,
    float[1,1,1,1,1] d) => (float[] y) {{ {body} }}"""
    model = make_known(text, w=_f(3, 2, 1, 2), a=np.array([2]), k=np.float32(0.7),
                       v=_f(4), d=_f(1, 1, 1, 1, 1))  # fmt: skip
    assert apply_pass(LiftScales(), model)[0] == ops
