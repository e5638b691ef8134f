"""Branches that are always taken, ranks, and outputs that nobody reads."""

from __future__ import annotations

import numpy as np
import pytest

from passes.drop_unused_outputs import DropUnusedOutputs
from passes.inline_if import InlineIf
from passes.pipeline import optimize
from passes.verify import verify

BRANCHES = """<then_branch = th () => (float[2] p) {{ a = Relu(x)  p = {then} }},
              else_branch = el () => (float[2] q) {{ a = Abs(x)  q = Exp(a) }}>"""


def _if(then: str = "Neg(a)") -> str:
    return BRANCHES.format(then=then)


@pytest.mark.parametrize(("value", "ops"), [(True, ["Relu", "Neg"]), (False, ["Abs", "Exp"])])
def test_the_branch_that_is_taken_stays(apply_pass, make, value, ops) -> None:
    text = f"t (bool c, float[2] x) => (float[2] y) {{ y = If (c) {_if()} }}"
    assert apply_pass(InlineIf(), make(text, c=np.array(value)))[0] == ops


def test_names_of_an_inlined_branch_are_new(apply_pass, make) -> None:
    """Both branches and the main graph call a value a."""
    text = f"""t (bool c, float[2] x) => (float[2] y, float[2] z)
    {{ y = If (c) {_if()}  a = Tanh(x)  z = Neg(a) }}"""
    ops, _, copy = apply_pass(InlineIf(), make(text, c=np.array(True)))
    assert ops == ["Relu", "Neg", "Tanh", "Neg"]
    assert len({o.name for n in copy.graph for o in n.outputs}) == 4


def test_an_if_in_an_if_is_inlined_too(apply_pass, make) -> None:
    inner = _if().replace("th ()", "ti ()").replace("el ()", "ei ()").replace("a = ", "b = ")
    inner = inner.replace("(a)", "(b)").replace(" p", " r").replace(" q", " s")
    text = f"""t (bool c, bool d, float[2] x) => (float[2] y) {{ y = If (c) <
        then_branch = th () => (float[2] p) {{ e = If (d) {inner}  p = Sin(e) }},
        else_branch = el () => (float[2] q) {{ q = Exp(x) }}> }}"""
    model = make(text, c=np.array(True), d=np.array(False))
    assert apply_pass(InlineIf(), model)[0] == ["Abs", "Exp", "Sin"]


def test_a_result_that_is_an_outer_value_gets_an_identity(make) -> None:
    text = """t (bool c, float[2] x) => (float[2] y) { y = If (c) <
        then_branch = th () => (float[2] p) { p = Identity(x) },
        else_branch = el () => (float[2] q) { q = Exp(x) }> }"""
    result = optimize(make(text, c=np.array(True))).model
    verify(result)
    assert [n.op_type for n in result.graph] == ["Identity"]


def test_a_computed_condition_stays(apply_pass, make) -> None:
    text = f"t (bool c, float[2] x) => (float[2] y) {{ y = If (c) {_if()} }}"
    assert apply_pass(InlineIf(), make(text))[0] == ["If"]


SQUEEZE = """t (float[N,4,T] x, float[1,8,4] w, float[1,8,2] r, int64[1] l, int64[1] o, int64[1] f) =>
(float[] y, float[] z)
{{ s = Shape(x)  d = Gather(s, l)  c = Equal(d, o)
  q = If (c) <then_branch = th () => (float[] p) {{ p = Squeeze(x, l) }},
              else_branch = el () => (float[] e) {{ e = Identity(x) }}>
  {rest} }}"""
SIZES = {"l": np.array([-1]), "o": np.array([1]), "f": np.array([0])}


def _squeezed(make, rest: str):
    weights = {"w": np.ones((1, 8, 4), np.float32) / 4, "r": np.ones((1, 8, 2), np.float32) / 5}
    return make(SQUEEZE.format(rest=rest), **SIZES, **weights)


def test_the_branch_that_an_lstm_cannot_read_goes(make, ort_outputs) -> None:
    model = _squeezed(
        make, "u = Unsqueeze(q, f)  y, h, g = LSTM<hidden_size=2>(u, w, r)  z = Neg(x)"
    )
    result = optimize(model).model
    assert "If" not in {n.op_type for n in result.graph}
    feeds = {"x": np.arange(12, dtype=np.float32).reshape(3, 4, 1)}
    wanted, got = ort_outputs(model, feeds), ort_outputs(result, feeds)
    np.testing.assert_allclose(got["y"], wanted["y"], rtol=1e-6)


def test_a_value_of_either_rank_keeps_its_if(make) -> None:
    result = optimize(_squeezed(make, "y = Relu(q)  z = Neg(x)")).model
    assert "If" in {n.op_type for n in result.graph}


def test_an_axis_that_may_be_long_is_still_squeezed(make) -> None:
    """A Reshape in its place would turn an error into a wrong result."""
    rest = "u = Unsqueeze(q, f)  y, h, g = LSTM<hidden_size=2>(u, w, r)  z = Neg(x)"
    ops = [n.op_type for n in optimize(_squeezed(make, rest)).model.graph]
    assert "Squeeze" in ops


def test_optional_outputs_that_nobody_reads_go(apply_pass, make) -> None:
    text = """t (float[3,1,4] x, float[1,8,4] w, float[1,8,2] r) => (float[] y)
    { a, h, c = LSTM<hidden_size=2>(x, w, r)  y = Relu(h) }"""
    _, outcome, copy = apply_pass(DropUnusedOutputs(), make(text))
    assert outcome.changes == 1
    assert [o.name for o in copy.graph[0].outputs] == ["", "h"]


@pytest.mark.parametrize(
    "body",
    [
        "a, b = Split<num_outputs=2>(x)  y = Neg(a)",
        "a, h, c = LSTM<hidden_size=2>(x, w, r)  d = Concat<axis=0>(h, c)  e = Squeeze(a)  y = Sum(d)",
    ],
)
def test_other_outputs_stay(make, body) -> None:
    text = f"t (float[4,1,4] x, float[1,8,4] w, float[1,8,2] r) => (float[] y) {{ {body} }}"
    assert DropUnusedOutputs().apply(make(text)).changes == 0


def test_results_of_branches_that_nobody_reads_go(make, ort_outputs) -> None:
    text = """t (bool c, float[2] x) => (float[2] y) { y, u = If (c) <
        then_branch = th () => (float[2] p, float[2] m) { p = Neg(x)  m = Sin(x) },
        else_branch = el () => (float[2] q, float[2] n) { q = Exp(x)  n = Cos(x) }> }"""
    model = make(text)
    result = optimize(model).model
    assert sorted(n.op_type for n in result.graph.all_nodes()) == ["Exp", "If", "Neg"]
    feeds = {"c": np.array(True), "x": np.float32([1, 2])}
    np.testing.assert_array_equal(ort_outputs(result, feeds)["y"], ort_outputs(model, feeds)["y"])
