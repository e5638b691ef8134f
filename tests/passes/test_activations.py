"""Activations and normalisations from their parts; and what must stay."""

from __future__ import annotations

import math

import numpy as np
import pytest

from passes.fuse_gelu import FuseGelu
from passes.fuse_group_norm import FuseGroupNorm
from passes.fuse_hard_sigmoid import FuseHardSigmoid
from passes.fuse_hard_swish import FuseHardSwish
from passes.fuse_mish import FuseMish
from passes.fuse_normalization import FuseInstanceNorm, FuseLayerNorm

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
    ("shape", "axes", "other", "goes"),
    [
        ("2,4,6", (-1,), "x", True),
        ("N,4,3,2", (2, 3), "x", True),
        ("2,N,6", (-1,), "x", False),  # how many groups?
        ("2,4,3,2", (3,), "x", False),
        ("2,4,3,2", (1, 2, 3), "x", False),
        ("2,4,6", (-1,), "d", False),
        ("2,4,6", (-1,), "v", False),
    ],
)
def test_groups_are_normalised_as_instances(
    apply_pass, make_known, shape, axes, other, goes
) -> None:
    text = f"""t (float[{shape}] x, int64[{len(axes)}] a, float e) => (float[] y, float[] z)
    {{ m = ReduceMean(x, a)  d = Sub(x, m)  q = Mul(d, d)  v = ReduceMean(q, a)  w = Add(v, e)
      r = Sqrt(w)  y = Div(d, r)  z = Neg({other}) }}"""
    model = make_known(text, a=np.array(axes), e=np.float32(0.01))
    sizes = tuple(int(n) if n != "N" else 3 for n in shape.split(","))
    ops, outcome, _ = apply_pass(FuseGroupNorm(), model, 3e-6, x=sizes)
    assert outcome.changes == int(goes)
    assert ("InstanceNormalization" in ops) == goes
