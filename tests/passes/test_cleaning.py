"""Constants, identities, duplicates and dead code; and what must stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from passes.deduplicate_initializers import DeduplicateInitializers
from passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from passes.eliminate_identity import EliminateIdentity
from passes.fold_constants import FoldConstants
from passes.graph import forget_names, fresh_name
from passes.lift_constants import LiftConstants
from passes.mean_to_pool import MeanToPool
from passes.remove_unused import RemoveUnused


def test_unused_nodes_and_initialisers_go(apply_pass, make) -> None:
    text = """t (float[2] x, float[2] k) => (float[2] y)
    { a = Add(x, k)  b = Relu(a)  y = Neg(x) }"""
    ops, outcome, copy = apply_pass(RemoveUnused(), make(text, k=np.ones(2, np.float32)))
    assert ops == ["Neg"]
    assert not copy.graph.initializers
    assert outcome.changes == 3


def test_unused_graph_input_stays(apply_pass, make) -> None:
    text = "t (float[2] x, float[2] unused) => (float[2] y) { y = Neg(x) }"
    assert len(apply_pass(RemoveUnused(), make(text))[2].graph.inputs) == 2


def test_value_used_in_a_subgraph_stays(apply_pass, make) -> None:
    text = """t (bool c, float[2] x) => (float[2] y)
    { a = Neg(x)
      y = If (c) <then_branch = th () => (float[2] p) { p = Relu(a) },
                  else_branch = el () => (float[2] q) { q = Abs(x) }> }"""
    assert apply_pass(RemoveUnused(), make(text))[0] == ["Neg", "If"]


def test_value_used_in_a_dead_subgraph_goes(apply_pass, make) -> None:
    text = """t (bool c, float[2] x) => (float[2] y)
    { a = Neg(x)
      d = If (c) <then_branch = th () => (float[2] p) { b = Relu(a)  p = Relu(b) },
                  else_branch = el () => (float[2] q) { q = Abs(a) }>
      y = Exp(x) }"""
    assert apply_pass(RemoveUnused(), make(text))[0] == ["Exp"]


def test_branches_may_use_the_same_names(apply_pass, make) -> None:
    text = """t (bool c, float[2] x) => (float[2] y)
    { y = If (c) <then_branch = th () => (float[2] p) { a = Relu(x)  p = Neg(a) },
                  else_branch = el () => (float[2] p) { a = Abs(x)  p = Exp(a) }> }"""
    assert apply_pass(RemoveUnused(), make(text))[0] == ["If"]


def test_constants_fold_in_one_walk(apply_pass, make) -> None:
    text = """t (float[2] x, float[2] k) => (float[2] y)
    { a = Add(k, k)  b = Sqrt(a)  y = Mul(x, b) }"""
    ops, outcome, _ = apply_pass(FoldConstants(), make(text, k=np.float32([2, 8])))
    assert ops == ["Mul"]
    assert outcome.changes == 2


def test_shape_of_a_static_value_folds_and_of_a_dynamic_one_does_not(apply_pass, make) -> None:
    static = (
        "t (float[2,3] x) => (int64[2] y, float[2,3] z) { s = Shape(x) y = Neg(s) z = Relu(x) }"
    )
    assert "Shape" not in apply_pass(FoldConstants(), make(static))[0]
    dynamic = static.replace("[2,3] x", "[N,3] x").replace("[2,3] z", "[N,3] z")
    assert "Shape" in apply_pass(FoldConstants(), make(dynamic))[0]


def test_static_part_of_a_dynamic_shape_folds(apply_pass, make) -> None:
    text = """t (float[N,3,5] x) => (int64[1] y, float[N,3,5] z)
    { s = Shape<start=1, end=2>(x)  y = Neg(s)  z = Relu(x) }"""
    assert "Shape" not in apply_pass(FoldConstants(), make(text))[0]
    open_end = text.replace("start=1, end=2", "start=0, end=1")
    assert "Shape" in apply_pass(FoldConstants(), make(open_end))[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Add(k, k)  z = Neg(x)", "graph output"),
        ("a = RandomNormalLike(k)  b = Sub(a, a)  y = Add(b, x)  z = Neg(x)", "random"),
    ],
)
def test_fold_must_not(make, body, reason) -> None:
    text = f"t (float[2] x, float[2] k) => (float[2] y, float[2] z) {{ {body} }}"
    outcome = FoldConstants().apply(make(text, k=np.ones(2, np.float32)))
    assert reason in outcome.refusals[0].reason


def test_fold_keeps_quantised_weights(make) -> None:
    text = """t (float[2,2] x, int8[2,2] q, float s) => (float[2,2] y)
    { w = DequantizeLinear(q, s)  y = MatMul(x, w) }"""
    model = make(text, q=np.ones((2, 2), np.int8), s=np.float32(0.5))
    outcome = FoldConstants().apply(model)
    assert outcome.changes == 0
    assert "quantisation" in outcome.refusals[0].reason


def test_fold_does_not_grow_the_file(make) -> None:
    text = """t (float[100,100] x, float[1] k, int64[2] s) => (float[100,100] y)
    { a = Expand(k, s)  y = Add(x, a) }"""
    outcome = FoldConstants().apply(make(text, k=np.ones(1, np.float32), s=np.array([100, 100])))
    assert outcome.changes == 0
    assert "grow" in outcome.refusals[0].reason


def test_constants_are_lifted(apply_pass, make) -> None:
    text = """t (float[2] x) => (float[2] y)
    { k = Constant<value = float[2] {3, 4}>()  y = Mul(x, k) }"""
    ops, _, copy = apply_pass(LiftConstants(), make(text))
    assert ops == ["Mul"]
    assert list(copy.graph.initializers) == ["k"]


def test_constant_output_is_not_lifted(apply_pass, make) -> None:
    text = "t (float[2] x) => (float[2] y, float[2] k) { k = Constant<value = float[2] {3, 4}>() y = Mul(x, k) }"
    assert "Constant" in apply_pass(LiftConstants(), make(text))[0]


@pytest.mark.parametrize(
    "node",
    [
        "Identity(x)", "Transpose<perm=[0,1,2]>(x)", "Cast<to=1>(x)", "Pad(x, z)",
        "Reshape(x, s)", "Concat<axis=0>(x)", "Dropout(x)",
    ],
)  # fmt: skip
def test_identities_go(apply_pass, make, node) -> None:
    text = f"""t (float[2,3,4] x, int64[6] z, int64[3] s) => (float[2,3,4] y)
    {{ float[2,3,4] a = {node}  y = Relu(a) }}"""
    model = make(
        text.replace("float[2,3,4] a", "a"), z=np.zeros(6, np.int64), s=np.array([2, 3, 4])
    )
    model.graph[0].outputs[0].shape = ir.Shape([2, 3, 4])
    model.graph[0].outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    assert apply_pass(EliminateIdentity(), model)[0] == ["Relu"]


@pytest.mark.parametrize(
    "node",
    [
        "Transpose<perm=[0,2,1]>(x)", "Transpose(x)", "Cast<to=11>(x)", "Reshape(x, s)",
        "Concat<axis=0>(x, x)",
    ],
)  # fmt: skip
def test_no_identity_stays(apply_pass, make, node) -> None:
    text = f"t (float[3,4,4] x, int64[3] s) => (y) {{ a = {node}  y = Neg(a) }}"
    model = make(text.replace("(y)", "(float[] y)" if "11" not in node else "(double[] y)"),
                 s=np.array([4, 4, 3]))  # fmt: skip
    assert len(apply_pass(EliminateIdentity(), model)[0]) == 2


def test_identity_between_input_and_output_stays(apply_pass, make) -> None:
    text = "t (float[2] x) => (float[2] y) { y = Identity(x) }"
    ops, outcome, _ = apply_pass(EliminateIdentity(), make(text))
    assert ops == ["Identity"]
    assert "graph output" in outcome.refusals[0].reason


def test_identity_before_an_output_gives_its_name_away(apply_pass, make) -> None:
    text = "t (float[2] x) => (float[2] y) { a = Relu(x)  y = Identity(a) }"
    assert apply_pass(EliminateIdentity(), make(text))[0] == ["Relu"]


def test_identity_of_an_outer_value_in_a_branch_stays(apply_pass, make) -> None:
    text = """t (bool c, float[2] x) => (float[2] y)
    { a = Neg(x)
      y = If (c) <then_branch = th () => (float[2] p) { p = Identity(a) },
                  else_branch = el () => (float[2] q) { q = Abs(a) }> }"""
    _, outcome, copy = apply_pass(EliminateIdentity(), make(text))
    assert outcome.changes == 0
    assert "Identity" in {n.op_type for n in copy.graph.all_nodes()}


@pytest.mark.parametrize(
    ("keep", "ops"), [(1, ["GlobalAveragePool"]), (0, ["GlobalAveragePool", "Flatten"])]
)
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_spatial_mean_is_a_pool(apply_pass, make, keep, ops, axes) -> None:
    text = f"""t (float[N,3,4,5] x, int64[2] a) => (float[] y)
    {{ y = ReduceMean<keepdims={keep}>(x, a) }}"""
    assert apply_pass(MeanToPool(), make(text, a=np.array(axes)))[0] == ops


@pytest.mark.parametrize(
    ("axes", "shape"), [([1, 2], "2,3,4,5"), ([2], "2,3,4,5"), ([1, 2], "2,3,4")]
)
def test_other_means_stay(apply_pass, make, axes, shape) -> None:
    text = f"t (float[{shape}] x, int64[{len(axes)}] a) => (float[] y) {{ y = ReduceMean(x, a) }}"
    assert apply_pass(MeanToPool(), make(text, a=np.array(axes)))[0] == ["ReduceMean"]


def test_equal_nodes_merge(apply_pass, make) -> None:
    text = """t (float[2,3] x) => (float[3,2] y)
    { a = Transpose<perm=[1,0]>(x)  b = Transpose<perm=[1,0]>(x)  c = Relu(a)  d = Relu(b)
      y = Add(c, d) }"""
    assert apply_pass(EliminateCommonSubexpressions(), make(text))[0] == [
        "Transpose",
        "Relu",
        "Add",
    ]


@pytest.mark.parametrize(
    "body",
    [
        "a = LeakyRelu<alpha=0.1>(x)  b = LeakyRelu<alpha=0.2>(x)  y = Add(a, b)  z = Neg(y)",
        "a = Sub(x, k)  b = Sub(k, x)  y = Add(a, b)  z = Neg(y)",
        "y = Relu(x)  z = Relu(x)",
        "a = RandomNormalLike(x)  b = RandomNormalLike(x)  c = Sub(a, b)  d = Mul(c, k)  y = Add(d, x)  z = Neg(x)",
    ],
)
def test_different_nodes_stay(make, body) -> None:
    text = f"t (float[2] x, float[2] k) => (float[2] y, float[2] z) {{ {body} }}"
    model = make(text, k=np.zeros(2, np.float32))
    assert EliminateCommonSubexpressions().apply(model).changes == 0


def test_equal_initialisers_are_stored_once(apply_pass, make) -> None:
    text = """t (float[2] x, float[2] k, float[2] l, float[2] m, float[1,2] n) => (float[] y)
    { a = Add(x, k)  b = Mul(a, l)  c = Sub(b, m)  y = Add(c, n) }"""
    ones = np.ones(2, np.float32)
    model = make(text, k=ones, l=ones.copy(), m=-ones, n=ones[None])
    _, outcome, copy = apply_pass(DeduplicateInitializers(), model)
    assert outcome.changes == 1
    assert set(copy.graph.initializers) == {"k", "m", "n"}


def test_constants_in_branches_fold_under_their_names(apply_pass, make) -> None:
    text = """t (bool c, float[2] x, float[2] k) => (float[2] y)
    { y = If (c) <then_branch = th () => (float[2] p) { a = Add(k, k)  p = Add(x, a) },
                  else_branch = el () => (float[2] q) { a = Mul(k, k)  q = Add(x, a) }> }"""
    _, outcome, copy = apply_pass(FoldConstants(), make(text, k=np.float32([2, 5])))
    assert outcome.changes == 2
    branches = [g for g in copy.graphs() if g is not copy.graph]
    assert [list(g.initializers) for g in branches] == [["a"], ["a"]]


def test_fresh_names_are_new_in_the_whole_model(make) -> None:
    text = """t (bool c, float[2] x, float[2] k) => (float[2] y)
    { y = If (c) <then_branch = th () => (float[2] p) { a = Add(x, k)  p = Neg(a) },
                  else_branch = el () => (float[2] q) { q = Abs(x) }> }"""
    model = make(text, k=np.ones(2, np.float32))
    branch = next(g for g in model.graphs() if g is not model.graph)
    forget_names(model)
    wanted = ["x", "y", "k", "a", "p", "n0", "free", "free"]
    given = ["x_1", "y_1", "k_1", "a_1", "p_1", "n0_1", "free", "free_1"]
    assert [fresh_name(branch, name) for name in wanted] == given
    assert fresh_name(model.graph, "x") == "x_2"
    assert fresh_name(model.clone().graph, "x") == "x_1", "a copy gives its own names"


def test_almost_equal_weights_are_kept(make) -> None:
    """They differ in one element that no sample of the bytes holds, or in a sign of zero only."""
    a = np.zeros((40, 64), np.float32)
    b, c = a.copy(), a.copy()
    b[10, 3] = 1
    c[30, 5] = -0.0
    text = """t (float[40,64] a, float[40,64] b, float[40,64] c, float[40,64] d, float[40,64] x) =>
    (float[40,64] y) { e = Add(a, b)  f = Add(c, d)  g = Add(e, f)  y = Add(g, x) }"""
    model = make(text, a=a, b=b, c=c, d=a.copy())
    assert DeduplicateInitializers().apply(model).changes == 1
    assert list(model.graph.initializers) == ["a", "b", "c"]
