"""Shape arithmetic, reshapes, transposes and neutral nodes; and what must stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from passes.eliminate_expand import EliminateExpand
from passes.eliminate_identity import EliminateIdentity
from passes.fold_reshapes import FoldReshapes
from passes.fold_shapes import FoldShapes
from passes.fold_zero_products import FoldZeroProducts
from passes.merge_reshapes import MergeReshapes
from passes.merge_transposes import MergeTransposes
from passes.pipeline import optimize
from passes.push_transposes import PushTransposes
from passes.squeeze_single_axes import SqueezeSingleAxes
from passes.transpose_to_reshape import TransposeToReshape


def _i(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


ONE = "t (float[N,3,5] x, int64[1] i, int64[1] j, int64[1] a) => (float[] y, int64[] z)"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("s = Shape(x)  d = Gather(s, i)", 0),
        ("s = Shape(x)  d = Slice(s, i, j, a)", 0),
        ("s = Shape<start=1>(x)  d = Max(s)", 1),  # any number of inputs: not computed here
        ("s = Shape<start=1>(x)  d = Max(s, i, j)", 1),
        ("s = Shape<start=1>(x)  c = Cast<to=6>(s)  b = Cast<to=7>(c)  d = Slice(b, a, i)", 0),
        ("s = Shape(x)  d = Gather(s, a)", 2),  # the dynamic dimension
        ("s = Shape(x)  d = Slice(s, a, j, a)", 2),  # both
    ],
)
def test_static_dimensions_fold(apply_pass, make_known, body, left) -> None:
    text = f"{ONE} {{ {body}  z = Neg(d)  y = Relu(x) }}"
    model = make_known(text, i=_i(1), j=_i(2), a=_i(0))
    ops, _, _ = apply_pass(FoldShapes(), model, x=(2, 3, 5))
    assert len(ops) == 2 + left


def test_a_dimension_that_is_an_output_stays(apply_pass, make_known) -> None:
    text = ONE.replace("int64[] z", "int64[1] d") + "{ s = Shape(x)  d = Gather(s, i) y = Relu(x) }"
    ops, outcome, _ = apply_pass(FoldShapes(), make_known(text, i=_i(1), j=_i(2), a=_i(0)))
    assert ops == ["Shape", "Gather", "Relu"]
    assert "graph output" in outcome.refusals[0].reason


RESHAPE = "t (float[N,T,12] x, int64[1] i, int64[1] j, int64[1] k, int64[1] l) => (float[] y)"


@pytest.mark.parametrize(
    ("parts", "target"),
    [
        ("n, t, k, l", [0, 0, 3, 4]),
        ("n, j, l", [0, -1, 4]),  # -1 was there
        ("t, n, k, l", None),  # two dimensions move
        ("n, t, l, k", [0, 0, 4, 3]),
    ],
)
def test_shapes_of_dimensions_become_constants(apply_pass, make_known, parts, target) -> None:
    text = f"""{RESHAPE} {{ n = Shape<start=0, end=1>(x)  t = Shape<start=1, end=2>(x)
    s = Concat<axis=0>({parts})  y = Reshape(x, s) }}"""
    model = make_known(text, i=_i(1), j=_i(-1), k=_i(3), l=_i(4))
    ops, _, copy = apply_pass(FoldReshapes(), model, x=(2, 3, 12))
    if target is None:
        assert len(ops) == 4
    else:
        assert [o for o in ops if o != "Shape"] == ["Reshape"]
        assert copy.graph[-1].inputs[1].const_value.numpy().tolist() == target


def test_equal_names_that_are_no_names_stay(apply_pass, make_known) -> None:
    """Some exporters call every dynamic dimension '?'."""
    text = (
        RESHAPE.replace("N,T", "N,N")
        + """{ n = Shape<start=0, end=1>(x)
    t = Shape<start=1, end=2>(x)  s = Concat<axis=0>(t, n, l, k)  y = Reshape(x, s) }"""
    )
    model = make_known(text, i=_i(1), j=_i(-1), k=_i(3), l=_i(4))
    model.graph.inputs[0].shape = ir.Shape(["?", "?", 12])
    assert FoldReshapes().apply(model).changes == 0


CHAIN = "t (float[N,1,4,6] x, int64[2] s, int64[1] a, int64[1] b, int64[3] c) => (float[] y)"


@pytest.mark.parametrize(
    "body",
    [
        "p = Reshape(x, s)  y = Reshape(p, c)",
        "p = Unsqueeze(x, a)  y = Squeeze(p, a)",
        "p = Squeeze(x, b)  y = Unsqueeze(p, a)",
        "p = Flatten(x)  y = Reshape(p, c)",
        "p = Squeeze(x, b)  q = Unsqueeze(p, b)  r = Unsqueeze(q, b)  y = Flatten<axis=2>(r)",
        "p = Transpose<perm=[1,0,2,3]>(x)  y = Reshape(p, c)",
    ],
)
def test_chains_of_reshapes_are_one(apply_pass, make_known, body) -> None:
    body = body.replace("y = ", "o = ")
    model = make_known(
        f"{CHAIN} {{ {body}  y = Relu(o) }}", s=_i(0, 24), a=_i(0), b=_i(1), c=_i(-1, 8, 3)
    )
    assert apply_pass(MergeReshapes(), model, x=(2, 1, 4, 6))[1].changes > 0
    assert [n.op_type for n in optimize(model).model.graph] in (["Reshape", "Relu"], ["Relu"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("p = Reshape(x, s)  q = Reshape(p, c)  y = Add(p, n)  z = Relu(q)", "needed for itself"),
        ("z = Reshape(x, s)  y = Reshape(z, c)", "needed for itself"),
        ("p = Transpose<perm=[0,2,1,3]>(x)  y = Reshape(p, c)  z = Relu(y)", None),
        ("p = Squeeze(w, b)  y = Reshape(p, c)  z = Relu(y)", "must stay an error"),
    ],
)
def test_other_reshapes_stay(make_known, body, reason) -> None:
    text = f"{CHAIN.replace('float[N,1,4,6] x', 'float[N,2,4,6] x, float[N,M,4,6] w, float[48] n')}"
    text = text.replace("float[] y", "float[] y, float[] z") + f" {{ {body} }}"
    model = make_known(text, s=_i(0, 48), a=_i(0), b=_i(1), c=_i(-1, 8, 3))
    outcome = MergeReshapes().apply(model)
    assert outcome.changes == 0
    assert reason is None or reason in outcome.refusals[0].reason


def test_transposes_compose_and_cancel(apply_pass, make) -> None:
    text = """t (float[2,3,4] x) => (float[4,2,3] y, float[2,3,4] z)
    { a = Transpose<perm=[1,2,0]>(x)  y = Transpose<perm=[1,2,0]>(a)  z = Transpose<perm=[2,0,1]>(a) }"""
    ops, _, copy = apply_pass(MergeTransposes(), make(text))
    assert ops == ["Transpose", "Transpose"]
    assert list(copy.graph[0].attributes["perm"].as_ints()) == [2, 0, 1]


def test_transposes_with_something_between_stay(apply_pass, make) -> None:
    text = """t (float[2,3] x, float[3] k) => (float[] y)
    { a = Transpose(x)  b = Reshape(a, s)  y = Transpose(b) }"""
    text = text.replace("float[3] k", "int64[2] s")
    assert len(apply_pass(MergeTransposes(), make(text, s=_i(2, 3)))[0]) == 3


@pytest.mark.parametrize(
    ("shape", "perm", "goes"),
    [
        ("N,8,1,1", "0,2,3,1", True),
        ("N,8,1,5", "0,2,3,1", False),
        ("N,1,T,4", "0,2,1,3", False),  # two dynamic dimensions, of which one moves
        ("1,8,T,1", "1,0,3,2", True),
    ],
)
def test_transposes_of_single_axes_are_reshapes(apply_pass, make_known, shape, perm, goes) -> None:
    text = f"t (float[{shape}] x) => (float[] y) {{ a = Transpose<perm=[{perm}]>(x)  y = Relu(a) }}"
    ops, _, _ = (
        apply_pass(TransposeToReshape(), make_known(text), x=(2, 8, 1, 1))
        if (shape == "N,8,1,1")
        else apply_pass(TransposeToReshape(), make_known(text))
    )
    if shape == "N,1,T,4":
        assert ops[0] in ("Transpose", "Reshape")
    else:
        assert ops[0] == ("Reshape" if goes else "Transpose")


TURN, BACK = "Transpose<perm=[0,2,3,1]>", "Transpose<perm=[0,3,1,2]>"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"a = {TURN}(x)  b = Relu(a)  y = {BACK}(b)", 0),
        (f"a = {TURN}(x)  b = Mul(a, k)  c = Clip(b, l, h)  y = {BACK}(c)", 0),
        (f"a = {TURN}(x)  b = {TURN}(w)  c = Add(a, b)  y = {BACK}(c)", 0),
        (f"a = {TURN}(x)  b = {TURN}(w)  c = Concat<axis=-1>(a, b)  y = {BACK}(c)", 0),
        (f"a = {TURN}(x)  c = Add(a, v)  y = {BACK}(c)", 1),  # v is turned instead
        (f"c = Relu(v)  y = {BACK}(c)", 1),
        (f"a = {TURN}(x)  b = Relu(a)  y = Transpose<perm=[0,1,3,2]>(b)", 1),
        (f"a = {TURN}(x)  b = LayerNormalization(a, k)  y = {BACK}(b)", 2),
    ],
)
def test_transposes_meet(apply_pass, make_known, body, left) -> None:
    text = f"""t (float[2,3,4,5] x, float[2,3,4,5] w, float[2,4,5,3] v, float[3] k, float l, float h)
    => (float[] y) {{ {body} }}"""
    model = make_known(text, k=np.float32([1, 2, 3]), l=np.float32(0), h=np.float32(6))
    ops, _, _ = apply_pass(PushTransposes(), model)
    assert ops.count("Transpose") == left


def test_a_value_that_others_read_is_turned_back_for_them(apply_pass, make_known) -> None:
    text = f"""t (float[2,3,4,5] x) => (float[] y, float[] z)
    {{ a = {TURN}(x)  b = Relu(a)  y = {BACK}(b)  z = Neg(b) }}"""
    ops, _, _ = apply_pass(PushTransposes(), make_known(text))
    assert ops == ["Relu", "Transpose", "Neg"]


def test_a_transposed_value_that_outputs_read_stays(apply_pass, make_known) -> None:
    text = f"""t (float[2,3,4,5] x) => (float[] y, float[] z)
    {{ a = {TURN}(x)  b = Relu(a)  y = Reshape(b, s)  z = Neg(b) }}"""
    text = text.replace("float[2,3,4,5] x", "float[2,3,4,5] x, int64[1] s")
    ops, outcome, _ = apply_pass(PushTransposes(), make_known(text, s=_i(-1)))
    assert ops.count("Transpose") == 1
    assert "cancel" in outcome.refusals[0].reason


@pytest.mark.parametrize(
    ("body", "ops"),
    [
        ("e = Expand(b, s)  y = Div(x, e)", ["Div"]),
        ("e = Expand(b, s)  y = Div(b, e)", ["Expand", "Div"]),  # nothing else has the shape
        ("e = Expand(b, s)  y = Concat<axis=0>(x, e)", ["Expand", "Concat"]),
    ],
)
def test_expands_before_broadcasting_go(apply_pass, make_known, body, ops) -> None:
    model = make_known(
        f"t (float[2,3] x, float[2,1] b, int64[2] s) => (float[] y) {{ {body} }}", s=_i(2, 3)
    )
    assert apply_pass(EliminateExpand(), model)[0] == ops


@pytest.mark.parametrize(
    ("kind", "shape", "ops"),
    [
        ("int64", "2", ["Add"]),
        ("float", "2", ["Mul", "Add"]),  # 0 * inf is no number
        ("int64", "N", ["Mul", "Add"]),
    ],
)
def test_integers_times_zero_are_zero(apply_pass, make_known, kind, shape, ops) -> None:
    text = f"""t ({kind}[{shape}] n, {kind}[{shape}] m, {kind} k) => ({kind}[{shape}] y)
    {{ a = Mul(n, k)  y = Add(a, m) }}"""
    model = make_known(text, k=np.array(0, np.float32 if kind == "float" else np.int64))
    assert apply_pass(FoldZeroProducts(), model)[0] == ops


@pytest.mark.parametrize(
    ("node", "goes"),
    [
        ("Add(x, z)", True), ("Sub(x, z)", True), ("Mul(o, x)", True), ("Div(x, o)", True),
        ("Pow(x, o)", True), ("Slice(x, f, e, f)", True), ("Reshape(x, r)", True),
        ("Sub(z, x)", False), ("Div(o, x)", False), ("Add(x, w)", False),
        ("Slice(x, f, g, f)", False),
    ],
)  # fmt: skip
def test_neutral_arithmetic_goes(apply_pass, make_known, node, goes) -> None:
    """Adding w, which is zero too, makes the result wider."""
    text = f"""t (float[N,3] x, float[1] z, float o, float[1,1,1] w, int64[1] f, int64[1] e,
    int64[1] g, int64[2] r) => (float[] y) {{ a = {node}  y = Abs(a) }}"""
    model = make_known(
        text, z=np.float32([0]), o=np.float32(1), w=np.zeros((1, 1, 1), np.float32), f=_i(0),
        e=_i(2**63 - 1), g=_i(1), r=_i(-1, 3),
    )  # fmt: skip
    assert (apply_pass(EliminateIdentity(), model, x=(2, 3))[0] == ["Abs"]) == goes


@pytest.mark.parametrize(
    ("node", "op"),
    [
        ("Gather<axis=1>(x, n)", "Squeeze"),
        ("ReduceMean<keepdims=0>(x, b)", "Squeeze"),
        ("ReduceMax(x, b)", "Identity"),
        ("Gather<axis=1>(x, v)", "Gather"),  # a vector keeps the axis
        ("Gather<axis=0>(x, n)", "Gather"),
        ("ReduceSum(x, a)", "ReduceSum"),
        ("ReduceSum(x)", "ReduceSum"),
        ("ReduceL2(x, b)", "ReduceL2"),  # has no sign
    ],
)
def test_the_only_element_of_an_axis_is_itself(apply_pass, make_known, node, op) -> None:
    text = f"""t (float[N,1,4] x, int64 n, int64[1] v, int64[1] a, int64[1] b) => (float[] y)
    {{ y = {node} }}"""
    model = make_known(text, n=np.int64(0), v=_i(0), a=_i(0), b=_i(1))
    assert apply_pass(SqueezeSingleAxes(), model, x=(2, 1, 4))[0] == [op]
