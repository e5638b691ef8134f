"""Attention from its parts; and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from passes.fuse_attention import FuseAttention
from passes.fuse_attention_heads import FuseAttentionHeads
from passes.infer_shapes import InferShapes

BODY = "kt = Transpose<perm=[0,1,3,2]>(k)  s = MatMul(q, kt)  "
END = "p = Softmax(a)  y = MatMul(p, v)  z = Neg(q)"
TEXT = """t ({kind}[2,3,5,4] q, {kind}[{keys},3,7,4] k, {kind}[2,3,7,6] v, {kind}[{mask}] m,
{kind} h, {kind} n) => ({kind}[] y, {kind}[] z) {{ {body} }}"""


def _model(make_known, body, mask="5,7", kind="float", keys="2", version=23):
    text = TEXT.format(kind=kind, body=body, mask=mask, keys=keys)
    dtype = {"float": np.float32, "double": np.float64, "float16": np.float16}[kind]
    model = make_known(text, h=np.array(0.7, dtype), n=np.array(-0.7, dtype))
    model.opset_imports[""] = version
    return model


@pytest.mark.parametrize(
    ("body", "mask", "scale"),
    [
        (f"{BODY} {END}".replace("Softmax(a)", "Softmax(s)"), "5,7", 1.0),
        (f"{BODY} a = Mul(s, h)  {END}", "5,7", 0.7),
        (f"{BODY} d = Div(s, h)  a = Add(d, m)  {END}", "5,7", 1 / 0.7),
        (f"{BODY} d = Mul(h, s)  a = Add(m, d)  {END}", "2,3,5,7", 0.7),
        (f"{BODY} a = Add(s, m)  {END}", "1,1,5,7", 1.0),
        (f"c = Mul(q, h)  kt = Transpose<perm=[0,1,3,2]>(k)  s = MatMul(c, kt)  a = Add(s, m)  {END}",
         "2,1,5,7", 0.7),
        (f"c = Mul(q, h)  kt = Transpose<perm=[0,1,3,2]>(k)  e = Mul(kt, h)  s = MatMul(c, e)  a = Add(s, m)  {END}",
         "1,3,5,7", 0.49),
        (f"e = Mul(k, h)  kt = Transpose<perm=[0,1,3,2]>(e)  s = MatMul(q, kt)  a = Add(s, m)  {END}",
         "5,7", 0.7),
        (f"{BODY} a = Add(s, m)  {END}", "2,1,1,7", 1.0),
        (f"{BODY} a = Add(s, m)  {END}", "1,7", 1.0),
    ],
)  # fmt: skip
def test_attention_is_recognised(apply_pass, make_known, body, mask, scale) -> None:
    ops, _, after = apply_pass(FuseAttention(), _model(make_known, body, mask), 3e-6)
    assert [op for op in ops if op not in ("Shape", "Concat", "Expand", "Identity")] in (
        ["Attention", "Neg"], ["Transpose", "Attention", "Neg"],
    )  # fmt: skip
    found = next(n for n in after.graph if n.op_type == "Attention")
    assert found.attributes["scale"].as_float() == pytest.approx(scale)


def test_half_precision_too(apply_pass, make_known) -> None:
    model = _model(make_known, f"{BODY} a = Add(s, m)  {END}", kind="float16")
    assert "Attention" in apply_pass(FuseAttention(), model, 5e-3)[0]


@pytest.mark.parametrize(
    ("body", "changed", "reason"),
    [
        (f"{BODY} a = Mul(s, h)  {END.replace('Neg(q)', 'Neg(p)')}", {}, "read the weights"),
        (f"{BODY} a = Mul(s, h)  {END.replace('Neg(q)', 'Neg(s)')}", {}, "no product"),
        (f"{BODY} a = Add(s, m)  {END.replace('Neg(q)', 'Neg(s)')}", {}, "no mask"),
        (f"{BODY} a = Mul(s, n)  {END}", {}, "not positive"),
        (f"{BODY} a = Mul(s, h)  {END}", {"kind": "double"}, "type"),
        (f"{BODY} a = Mul(s, h)  {END}", {"keys": "1"}, "batch and heads"),
        (f"{BODY} a = Mul(s, h)  {END}", {"version": 20}, "opset 23"),
        (f"{BODY} a = Mul(s, m)  {END}", {}, "no product"),
        (f"{BODY} a = Add(s, m)  {END}", {"mask": "7"}, "two axes or four"),
        (f"{BODY} a = Add(s, m)  {END}", {"mask": "5,1"}, "each key"),
        (f"{BODY} a = Mul(s, h)  {END.replace('Softmax', 'Softmax<axis=2>')}", {}, "over the keys"),
        (f"s = MatMul(q, k)  a = Mul(s, h)  {END}", {"transposed": True}, "not transposed"),
    ],
)
def test_other_products_stay(make_known, body, changed, reason) -> None:
    transposed = changed.pop("transposed", False)
    model = _model(make_known, body, **changed) if not transposed else _transposed(make_known, body)
    before = [n.op_type for n in model.graph]
    outcome = FuseAttention().apply(model)
    assert [n.op_type for n in model.graph] == before
    assert reason in outcome.refusals[0].reason


def _transposed(make_known, body):
    text = TEXT.replace("{keys},3,7,4", "2,3,4,7").format(
        kind="float", body=body, mask="5,7", keys="2"
    )
    model = make_known(text, h=np.float32(0.7), n=np.float32(-0.7))
    model.opset_imports[""] = 23
    return model


def test_a_mask_that_widens_the_scores_stays(make_known) -> None:
    """One sample and a mask of two are two results."""
    text = TEXT.replace("[2,3,5,4]", "[1,3,5,4]").replace("[2,3,7,6]", "[1,3,7,6]")
    body = f"{BODY} a = Add(s, m)  {END}"
    model = make_known(
        text.format(kind="float", keys="1", mask="2,1,5,7", body=body), h=np.float32(1),
        n=np.float32(1),
    )  # fmt: skip
    model.opset_imports[""] = 23
    assert "each key" in FuseAttention().apply(model).refusals[0].reason


HEADS = """t (float[2,5,12] x, float[2,7,12] w, int64[4] part, int64[3] join) =>
(float[] y, float[] z)
{{ a = Reshape(x, part)  b = Reshape(w, part)  q = Transpose<perm=[0,2,1,3]>(a)
  k = Transpose<perm=[0,2,1,3]>(b)  v = Transpose<perm=[{perm}]>(b)  {attention}
  o = Transpose<perm=[0,2,1,3]>(t)  j = Reshape(o, join)  y = Exp(j)  z = Neg({other}) }}"""


def _heads(make, attention, perm="0,2,1,3", other="x", joined=(2, 5, 12)):
    text = HEADS.format(attention=attention, perm=perm, other=other)
    parted = np.array([2, -1, 3, 4])
    model = make(text, part=parted, join=np.array(joined))
    model.opset_imports[""] = 23
    InferShapes().apply(model)
    return model


ATTENTION = "t = Attention<scale=0.5>(q, k, v)"


def test_heads_are_parted_inside(apply_pass, make) -> None:
    ops, _, after = apply_pass(FuseAttentionHeads(), _heads(make, ATTENTION))
    assert sorted(ops) == ["Attention", "Exp", "Neg"]
    found = next(n for n in after.graph if n.op_type == "Attention")
    counts = [found.attributes[name].as_int() for name in ("q_num_heads", "kv_num_heads")]
    assert counts == [3, 3]


@pytest.mark.parametrize(
    ("attention", "changed"),
    [
        (ATTENTION, {"other": "o"}),
        (ATTENTION, {"other": "t"}),
        (ATTENTION, {"joined": (2, 3, 20)}),  # joined otherwise
        ("t, e = Attention<scale=0.5>(q, k, v)", {"other": "e"}),
        ("c = Neg(v)  t = Attention<scale=0.5>(q, k, c)", {}),
    ],
)
def test_other_heads_stay(apply_pass, make, attention, changed) -> None:
    ops, outcome, _ = apply_pass(FuseAttentionHeads(), _heads(make, attention, **changed))
    assert (outcome.changes, ops.count("Transpose")) == (0, 4)
