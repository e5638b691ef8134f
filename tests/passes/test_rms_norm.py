"""RMSNormalization, or the form of its parts that engines fuse; and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from passes.fuse_rms_norm import FuseRMSNorm, PlainRMSNorm
from passes.reduce_strength import ReduceStrength

TEXT = """t ({kind}[2,3,5] x, {kind}[2,3,5] w, int64[{count}] a, {kind} e, {kind} two, {kind}[{scale}] s)
=> ({kind}[] y, {kind}[] z)
{{ q = {square}  m = ReduceMean(q, a)  v = Add(m, e)  r = Sqrt(v)  {divide}
  y = {times}  z = Neg({other}) }}"""
MUL, POW = "Mul(x, x)", "Pow(x, two)"
DIV, INVERSE = "d = Div(x, r)", "i = Reciprocal(r)  d = Mul(x, i)"


def _model(
    make_known, square=POW, divide=DIV, times="Mul(d, s)", axes=(-1,), scale="5", other="w",
    kind="float", version=23,
):  # fmt: skip
    text = TEXT.format(
        kind=kind, count=len(axes), scale=scale, square=square, divide=divide, times=times,
        other=other,
    )  # fmt: skip
    dtype = {"float": np.float32, "double": np.float64}[kind]
    weights = np.arange(1, 1 + int(np.prod(list(map(int, scale.split(","))))), dtype=dtype)
    model = make_known(
        text, a=np.array(axes), e=np.array(0.01, dtype), two=np.array(2, dtype),
        s=weights.reshape([int(n) for n in scale.split(",")]),
    )  # fmt: skip
    model.opset_imports[""] = version
    return model


@pytest.mark.parametrize("square", [MUL, POW])
@pytest.mark.parametrize("divide", [DIV, INVERSE, "i = Reciprocal(r)  d = Mul(i, x)"])
@pytest.mark.parametrize(
    ("times", "axes", "scale"), [("Mul(d, s)", (-1,), "5"), ("Mul(s, d)", (1, 2), "3,5")]
)
def test_normalisations_are_recognised(
    apply_pass, make_known, square, divide, times, axes, scale
) -> None:
    model = _model(make_known, square, divide, times, axes, scale)
    assert sorted(apply_pass(FuseRMSNorm(), model, 2e-6)[0]) == ["Neg", "RMSNormalization"]


@pytest.mark.parametrize(("square", "divide"), [(MUL, DIV), (MUL, INVERSE), (POW, INVERSE)])
def test_older_opsets_get_the_form_that_engines_fuse(
    apply_pass, make_known, square, divide
) -> None:
    model = _model(make_known, square, divide, version=20)
    outcome = FuseRMSNorm().apply(model)
    assert outcome.refusals[0].reason == "the result needs opset 23"
    ops, _, after = apply_pass(PlainRMSNorm(), model, 2e-6)
    assert ops == ["Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Neg"]
    assert PlainRMSNorm().apply(after).changes == 0
    assert ReduceStrength().apply(after).changes == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"axes": (1,)},
        {"scale": "1"},  # one number for all
        {"scale": "3,5"},
        {"other": "r"},
        {"other": "d"},
        {"other": "m"},
        {"square": "Mul(x, w)"},
        {"square": "Pow(w, two)"},
        {"times": "Mul(d, w)"},
        {"times": "Mul(d, d)"},
        {"times": "Add(d, s)"},
        {"divide": "d = Div(w, r)"},
        {"divide": "i = Reciprocal(r)  d = Div(x, i)"},
        {"kind": "double"},
    ],
)
def test_other_normalisations_stay(make_known, changed) -> None:
    model = _model(make_known, **changed)
    assert FuseRMSNorm().apply(model).changes == 0
    assert PlainRMSNorm().apply(model).changes == 0
