"""Activations and normalisations from their parts, scales and bounds; and what must stay."""

from __future__ import annotations

import math

import numpy as np
import pytest

from passes.fold_affine_before import FoldAffineBefore
from passes.fuse_gates import FuseMish, FuseSwish
from passes.fuse_gelu import FuseGelu
from passes.fuse_hard_sigmoid import FuseHardSigmoid
from passes.fuse_hard_swish import FuseHardSwish
from passes.fuse_normalization import FuseInstanceNorm, FuseLayerNorm
from passes.matmul_to_gemm import MatMulToGemm
from passes.merge_clips import MergeClips
from passes.merge_scales import MergeScales

R = np.random.default_rng(3)


def _f(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) + 0.3).astype(np.float32)


NUMBERS = {
    "zero": 0, "one": 1, "half": 0.5, "two": 2, "three": 3, "six": 6, "sixth": 1 / 6,
    "root": math.sqrt(2), "inverse": math.sqrt(0.5), "pi": math.sqrt(2 / math.pi), "cubic": 0.044715,
}  # fmt: skip


def _activation(make_known, body, kind="float"):
    inputs = ", ".join(f"{kind} {name}" for name in NUMBERS)
    text = f"t ({kind}[2,3] x, {kind}[2,3] w, {inputs}) => ({kind}[] y, {kind}[] z) {{ {body}  z = Neg(x) }}"
    dtype = np.float64 if kind == "double" else np.float32
    return make_known(text, **{name: np.array(v, dtype) for name, v in NUMBERS.items()})


CLIPPED = "a = Add(x, three)  b = Clip(a, zero, six)"
ERF = "e = Erf(d)  p = Add(e, one)"
CUBE = "q = Mul(cubic, c)  s = Add(x, q)  d = Mul(pi, s)  e = Tanh(d)  p = Add(one, e)"


@pytest.mark.parametrize(
    ("item", "body", "op"),
    [
        (FuseHardSigmoid(), f"{CLIPPED}  y = Div(b, six)", "HardSigmoid"),
        (FuseHardSigmoid(), f"{CLIPPED}  y = Mul(sixth, b)", "HardSigmoid"),
        (FuseHardSwish(), f"{CLIPPED}  m = Mul(x, b)  y = Div(m, six)", "HardSwish"),
        (FuseHardSwish(), f"{CLIPPED}  m = Div(b, six)  y = Mul(m, x)", "HardSwish"),
        (
            FuseHardSwish(),
            "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x)  y = Mul(x, h)",
            "HardSwish",
        ),
        (FuseGelu(), f"d = Div(x, root)  {ERF}  m = Mul(x, p)  y = Mul(m, half)", "Gelu"),
        (FuseGelu(), f"d = Mul(x, inverse)  {ERF}  h = Mul(half, x)  y = Mul(h, p)", "Gelu"),
        (FuseGelu(), f"d = Div(x, root)  {ERF}  h = Mul(p, half)  y = Mul(x, h)", "Gelu"),
        (FuseGelu(), f"c = Pow(x, three)  {CUBE}  h = Mul(half, x)  y = Mul(h, p)", "Gelu"),
        (
            FuseGelu(),
            f"f = Mul(x, x)  c = Mul(f, x)  {CUBE}  h = Mul(half, x)  y = Mul(h, p)",
            "Gelu",
        ),
        (FuseMish(), "s = Softplus(x)  t = Tanh(s)  y = Mul(x, t)", "Mish"),
    ],
)
def test_activations_are_recognised(apply_pass, make_known, item, body, op) -> None:
    ops, outcome, _ = apply_pass(item, _activation(make_known, body), 2e-6)
    assert sorted(ops) == sorted([op, "Neg"])
    assert outcome.changes == 1


@pytest.mark.parametrize(
    ("item", "body"),
    [
        (FuseHardSigmoid(), f"{CLIPPED}  y = Div(b, three)"),
        (FuseHardSigmoid(), f"{CLIPPED}  c = Div(b, six)  y = Mul(c, b)"),
        (FuseHardSigmoid(), "a = Add(x, three)  b = Clip(a, one, six)  y = Div(b, six)"),
        (FuseHardSwish(), f"{CLIPPED}  m = Mul(w, b)  y = Div(m, six)"),
        (
            FuseHardSwish(),
            "a = Add(x, two)  b = Clip(a, zero, six)  m = Mul(x, b)  y = Div(m, six)",
        ),
        (FuseHardSwish(), "h = HardSigmoid<alpha=0.2, beta=0.5>(x)  y = Mul(x, h)"),
        (FuseGelu(), f"d = Div(w, root)  {ERF}  m = Mul(x, p)  y = Mul(m, half)"),
        (FuseGelu(), f"d = Div(x, two)  {ERF}  m = Mul(x, p)  y = Mul(m, half)"),
        (FuseGelu(), f"d = Div(x, root)  {ERF}  m = Mul(x, p)  y = Mul(m, two)"),
        (FuseGelu(), f"c = Pow(x, two)  {CUBE}  h = Mul(half, x)  y = Mul(h, p)"),
        (FuseMish(), "s = Softplus(w)  t = Tanh(s)  y = Mul(x, t)"),
        (FuseMish(), "s = Softplus(x)  t = Tanh(s)  m = Mul(x, t)  y = Add(m, s)"),
        (FuseSwish(), "s = Sigmoid(x)  y = Mul(x, s)"),  # of opset 24
    ],
)
def test_other_products_stay(make_known, item, body) -> None:
    model = _activation(make_known, body)
    before = [n.op_type for n in model.graph]
    assert item.apply(model).changes == 0
    assert [n.op_type for n in model.graph] == before


def test_a_part_that_is_a_graph_output_stays(make_known) -> None:
    body = f"{CLIPPED}  y = Div(b, six)"
    model = _activation(make_known, body)
    model.graph.outputs.append(model.graph[1].outputs[0])
    assert FuseHardSigmoid().apply(model).changes == 0


def test_later_operators_need_their_opset(make_known) -> None:
    model = _activation(make_known, f"d = Div(x, root)  {ERF}  m = Mul(x, p)  y = Mul(m, half)")
    model.opset_imports[""] = 19
    outcome = FuseGelu().apply(model)
    assert outcome.changes == 0
    assert outcome.refusals[0].reason == "the result needs opset 20"


@pytest.mark.parametrize(("scaled", "alpha"), [("x", 1.0), ("k", 2.0)])
def test_swish_where_the_opset_has_it(make_known, scaled, alpha) -> None:
    model = _activation(make_known, f"k = Mul(x, two)  s = Sigmoid({scaled})  y = Mul(s, x)")
    model.opset_imports[""] = 24
    assert FuseSwish().apply(model).changes == 1
    swish = next(n for n in model.graph if n.op_type == "Swish")
    assert swish.attributes["alpha"].as_float() == alpha


NORM = """t (float[2,4,3,5] x, int64[{n}] a, float e, float two, {scale} s, {bias} b) =>
(float[] y, float[] z)
{{ m = ReduceMean<keepdims=1>(x, a)  d = Sub(x, m)  {square}  v = ReduceMean<keepdims=1>(q, a)
  w = Add(v, e)  r = Sqrt(w)  n = Div(d, r)  g = Mul({times})  y = Add(g, b)  z = Neg({other}) }}"""


def _norm(make_known, axes, scale, square="q = Pow(d, two)", times="n, s", other="x", bias=None):
    shapes = [scale, bias or scale]
    types = ["float[" + ",".join(map(str, s)) + "]" for s in shapes]
    text = NORM.format(
        n=len(axes), scale=types[0], bias=types[1], square=square, times=times, other=other
    )
    return make_known(
        text, a=np.array(axes), e=np.float32(0.01), two=np.float32(2), s=_f(*shapes[0]),
        b=_f(*shapes[1]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("item", "axes", "scale", "square", "times"),
    [
        (FuseLayerNorm(), [-1], (5,), "q = Pow(d, two)", "n, s"),
        (FuseLayerNorm(), [3], (5,), "q = Mul(d, d)", "s, n"),
        (FuseLayerNorm(), [2, 3], (3, 5), "q = Mul(d, d)", "n, s"),
        (FuseInstanceNorm(), [2, 3], (4, 1, 1), "q = Mul(d, d)", "n, s"),
        (FuseInstanceNorm(), [-1, -2], (1, 4, 1, 1), "q = Pow(d, two)", "n, s"),
    ],
)
def test_normalisations_are_recognised(
    apply_pass, make_known, item, axes, scale, square, times
) -> None:
    ops, _, _ = apply_pass(item, _norm(make_known, axes, scale, square, times), 3e-6)
    assert sorted(ops) == sorted([item.op_type, "Neg"])


@pytest.mark.parametrize(
    ("item", "axes", "scale", "changed"),
    [
        (FuseLayerNorm(), [1], (4, 1, 1), {}),
        (FuseLayerNorm(), [-1], (3, 5), {}),
        (FuseLayerNorm(), [-1], (5,), {"bias": (3, 5)}),
        (FuseLayerNorm(), [-1], (5,), {"other": "d"}),
        (FuseLayerNorm(), [-1], (5,), {"other": "r"}),
        (FuseLayerNorm(), [-1], (5,), {"square": "q = Mul(d, x)"}),
        (FuseInstanceNorm(), [3], (4, 1, 1), {}),
        (FuseInstanceNorm(), [2, 3], (3, 5), {}),
    ],
)
def test_other_normalisations_stay(make_known, item, axes, scale, changed) -> None:
    assert item.apply(_norm(make_known, axes, scale, **changed)).changes == 0


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
