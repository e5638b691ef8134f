"""Levels and names of passes, and the undoing of what breaks the proof: rewrite by rewrite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime.errors import LimitError
from passes.base import EXTERNAL, Outcome, Pass, RewriteRule, is_op
from passes.config import OptimizeConfig
from passes.default import PASSES
from passes.graph import remove_node, replace_value
from passes.pipeline import optimize

# Clip(0, 6) changes nothing where its input is within 0 and 6, as everything after a Sigmoid is.
TEXT = """t (float[4] x, float lo, float hi) => (float[4] y)
{ a = Sigmoid(x)  b = Clip(a, lo, hi)  c = Neg(b)  d = Clip(c, lo, hi)  e = Add(d, a)
  f = Clip(e, lo, hi)  g = Sub(f, x)  h = Clip(g, lo, hi)  i = Exp(h)  y = Clip(i, lo, hi) }"""


def _model(make, high: float = 3.0) -> ir.Model:
    return make(TEXT, lo=np.float32(0), hi=np.float32(high))


@dataclass(frozen=True)
class _DropsClips(RewriteRule):
    """A rule that is right for some nodes only and does not know which."""

    name: ClassVar[str] = "drops-clips"
    fails: bool = False

    def match(self, node: ir.Node) -> bool:
        return is_op(node, "Clip") and not node.outputs[0].is_graph_output()

    def check(self, node: ir.Node) -> str | None:
        return None

    def rewrite(self, node: ir.Node) -> None:
        if self.fails and node.inputs[0].name == "c":
            raise KeyError("no such thing")
        replace_value(node.outputs[0], node.inputs[0])
        remove_node(node)


def _run_ort(ort_outputs, model: ir.Model) -> np.ndarray:
    return ort_outputs(model, {"x": np.array([-1.5, 0.5, 2, -0.2], np.float32)})["y"]


@pytest.mark.parametrize("fails", [False, True])
def test_only_the_wrong_rewrites_are_undone(make, ort_outputs, fails) -> None:
    """b and f are within the limits; d (of -sigmoid) and h (of f - x, beyond 0) are not."""
    model = _model(make)
    rule = _DropsClips(fails=fails)
    result = optimize(model, passes=[rule, *PASSES])
    record = next(r for r in result.records if r.name == "drops-clips")
    assert record.changes == 2
    assert record.fired == ("n1 (Clip)", "n5 (Clip)")
    undone = {r.node: r.reason for r in record.refusals}
    assert set(undone) == {"n3", "n7"}
    assert "undone: it changed the outputs: max rel" in undone["n7"]
    assert ("no such thing" if fails else "it changed the outputs") in undone["n3"]
    np.testing.assert_allclose(
        _run_ort(ort_outputs, result.model), _run_ort(ort_outputs, model), rtol=1e-6
    )
    assert record.nodes == (10, 8)
    assert not any("undone" in r.reason for o in result.records[1:] for r in o.refusals)


@dataclass(frozen=True)
class _NegatesEverything(RewriteRule):
    """A rule that is always wrong."""

    name: ClassVar[str] = "negates"

    def match(self, node: ir.Node) -> bool:
        return is_op(node, "Relu")

    def check(self, node: ir.Node) -> str | None:
        return None

    def rewrite(self, node: ir.Node) -> None:
        node.op_type = "Neg"


@pytest.mark.parametrize(("count", "reasons"), [(3, 3), (200, 1)])
def test_a_rule_that_is_always_wrong(make, count, reasons) -> None:
    """Few rewrites are refused one by one; with many the search gives up on the whole pass."""
    lines = [f"r{n} = Relu(x)  s{n} = Add(s{n - 1}, r{n})" for n in range(1, count + 1)]
    text = f"t (float[2] x) => (float[2] y) {{ s0 = Exp(x) {'  '.join(lines)} y = Neg(s{count}) }}"
    only = OptimizeConfig(passes="negates")
    result = optimize(make(text), only, passes=[_NegatesEverything()])
    (record,) = result.records
    assert record.changes == 0
    assert len(record.refusals) == reasons
    assert [n.op_type for n in result.model.graph].count("Relu") == count
    assert not any("undone" in k for n in result.model.graph for k in n.metadata_props)


@dataclass(frozen=True)
class _Renames(Pass):
    name: ClassVar[str] = "renames"
    what: str = "name"

    def apply(self, model: ir.Model) -> Outcome:
        value = model.graph.inputs[0]
        if self.what == "name":
            value.name = "other"
        elif self.what == "dimension":
            value.shape = ir.Shape([1])
        else:
            model.graph.outputs.pop()
        return Outcome(1)


@pytest.mark.parametrize(
    ("what", "text"), [("name", "'x'"), ("dimension", "N"), ("count", "number of inputs")]
)
def test_a_changed_interface_is_undone(make, what, text) -> None:
    model = make("t (float[N] x) => (float[N] y, float[N] z) { y = Relu(x)  z = Neg(x) }")
    result = optimize(model, passes=[_Renames(what=what)])
    assert text in result.records[0].refusals[0].reason
    assert result.model.graph.inputs[0].name == "x"
    assert str(result.model.graph.inputs[0].shape[0]) == "N"
    assert len(result.model.graph.outputs) == 2


@dataclass(frozen=True)
class _Stops(Pass):
    name: ClassVar[str] = "stops"

    def apply(self, model: ir.Model) -> Outcome:
        raise LimitError("the time budget is spent")


def test_a_spent_budget_is_no_reason_to_go_on(make) -> None:
    with pytest.raises(LimitError, match="budget"):
        optimize(_model(make), passes=[_Stops()])


@dataclass(frozen=True)
class _Foreign(Pass):
    """Counts its runs in a list that the test holds."""

    runs: list[int]
    name: ClassVar[str] = "foreign"
    level: ClassVar[int] = EXTERNAL

    def apply(self, model: ir.Model) -> Outcome:
        self.runs.append(len(list(model.graph)))
        return Outcome(0)


LEVELS = {
    0: ["Identity", "Identity", "Conv", "Add", "Relu"],
    1: ["Conv", "Add", "Relu"],
    2: ["Conv", "Relu"],
    3: ["Conv", "Relu"],
}


def _layers(make) -> ir.Model:
    text = """t (float[1,1,3,3] x, float[1,1,1,1] w, float[1,1,1] k) => (float[1,1,3,3] y)
    { a = Identity(x)  b = Identity(a)  c = Conv(b, w)  d = Add(c, k)  y = Relu(d) }"""
    return make(text, w=np.ones((1, 1, 1, 1), np.float32), k=np.ones((1, 1, 1), np.float32))


@pytest.mark.parametrize("level", LEVELS)
def test_levels(make, level) -> None:
    runs: list[int] = []
    result = optimize(_layers(make), OptimizeConfig(level=level), passes=[*PASSES, _Foreign(runs)])
    assert [n.op_type for n in result.model.graph] == LEVELS[level]
    assert runs == ([2] if level == 3 else []), "foreign code runs once, after the others"


def test_names_win_over_the_level(make) -> None:
    def ops(level: int, passes: str) -> list[str]:
        config = OptimizeConfig(level=level, passes=passes)
        return [n.op_type for n in optimize(_layers(make), config).model.graph]

    assert ops(1, "fold-affine") == ["Identity", "Identity", "Conv", "Relu"]
    assert ops(0, "eliminate-identity,fold-affine") == ["Conv", "Relu"]
    assert ops(2, "-fold-affine") == ["Conv", "Add", "Relu"]
    assert ops(1, "-eliminate-identity") == LEVELS[0]
