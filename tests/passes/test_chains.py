"""Casts, slices, concats and pads after each other; and what must stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from passes.flatten_concats import FlattenConcats
from passes.join_splits import JoinSplits, SplitJoins
from passes.merge_casts import MergeCasts
from passes.merge_pads import MergePads
from passes.merge_slices import MergeSlices
from passes.narrow_indices import NarrowIndices
from passes.sequence_to_split import SequenceToSplit


def _i(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    ("source", "middle", "target", "merged"),
    [
        ("int32", 7, 1, True),
        ("bool", 1, 7, True),
        ("float16", 1, 11, True),
        ("float", 10, 1, False),  # half precision loses digits
        ("float", 7, 1, False),  # truncates
        ("int64", 1, 7, False),
        ("int32", 11, 3, False),  # what does not fit in int8 is cut in another way
    ],
)
def test_casts_that_lose_nothing_merge(make_known, source, middle, target, merged) -> None:
    text = f"t ({source}[2] x) => (y) {{ a = Cast<to={middle}>(x)  y = Cast<to={target}>(a) }}"
    kind = ir.DataType(target).name.lower().replace("float", "float")
    model = make_known(text.replace("(y)", f"({kind}[2] y)"))
    assert MergeCasts().apply(model).changes == int(merged)
    assert len(model.graph) == (1 if merged else 2)


def test_cast_to_the_type_of_something(apply_pass, make_known) -> None:
    text = "t (int64[2] x, float[3] k) => (float[2] y) { y = CastLike(x, k) }"
    assert apply_pass(MergeCasts(), make_known(text))[0] == ["Cast"]


SLICE = "t (float[4,5,6] x, int64[1] a, int64[1] b, int64[1] c) => (float[] y, float[] z)"


@pytest.mark.parametrize(
    ("body", "slices"),
    [
        ("p = Slice(x, b, c, a)  q = Slice(p, b, c, b)  y = Relu(q)  z = Neg(x)", 1),
        ("p = Slice(x, a, c, a)  q = Slice(p, b, c, a)  y = Relu(q)  z = Neg(x)", 2),  # one axis
        ("p = Slice(x, b, c, a)  q = Slice(p, b, c, b)  y = Relu(q)  z = Neg(p)", 2),
        ("z = Slice(x, b, c, a)  q = Slice(z, b, c, b)  y = Relu(q)", 2),
    ],
)
def test_slices_of_different_axes_merge(apply_pass, make_known, body, slices) -> None:
    model = make_known(f"{SLICE} {{ {body} }}", a=_i(0), b=_i(1), c=_i(3))
    assert apply_pass(MergeSlices(), model)[0].count("Slice") == slices


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("p = Concat<axis=1>(x, w)  q = Concat<axis=-1>(p, x)  y = Neg(q)  z = Neg(x)", 1),
        (
            "p = Concat<axis=0>(x, x)  q = Concat<axis=0>(w, w)  y = Concat<axis=1>(p, q)  z = Neg(x)",
            3,
        ),
        ("p = Concat<axis=1>(x, w)  y = Concat<axis=1>(p, x)  z = Neg(p)", 2),
    ],
)
def test_concats_flatten(apply_pass, make_known, body, count) -> None:
    model = make_known(f"t (float[2,3] x, float[2,3] w) => (float[] y, float[] z) {{ {body} }}")
    assert apply_pass(FlattenConcats(), model)[0].count("Concat") == count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("a = Pad(x, p, v)  y = Pad(a, p, v)  z = Neg(x)", 1),
        ("a = Pad(x, p)  y = Pad(a, q, , j)  z = Neg(x)", 1),
        ("a = Pad(x, p)  y = Pad(a, p, v)  z = Neg(x)", 2),
        ('a = Pad(x, p)  y = Pad<mode="edge">(a, p)  z = Neg(x)', 2),
        ("a = Pad(x, p)  y = Pad(a, c)  z = Neg(x)", 2),  # crops
        ("a = Pad(x, p)  y = Pad(a, p)  z = Neg(a)", 2),
    ],
)
def test_pads_add_up(apply_pass, make_known, body, count) -> None:
    text = """t (float[2,3] x, int64[4] p, int64[4] c, int64[2] q, int64[1] j, float v) =>
    (float[] y, float[] z)"""
    model = make_known(
        f"{text} {{ {body} }}", p=_i(1, 0, 2, 3), c=_i(0, -1, 0, 0), q=_i(1, 2), j=_i(-1),
        v=np.float32(7),
    )  # fmt: skip
    assert apply_pass(MergePads(), model)[0].count("Pad") == count


def test_pieces_of_a_sequence_are_outputs_of_a_split(apply_pass, make_known) -> None:
    text = """t (float[2,6] x, int64 n, int64 i, int64 j) => (float[] y)
    { s = SplitToSequence<axis=-1>(x, n)  a = SequenceAt(s, i)  b = SequenceAt(s, j)  c = Neg(b)
      y = Concat<axis=1>(c, a) }"""
    model = make_known(text, n=np.int64(3), i=np.int64(0), j=np.int64(-1))
    assert apply_pass(SequenceToSplit(), model)[0] == ["Split", "Neg", "Concat"]


def test_a_sequence_that_is_used_as_a_whole_stays(make_known) -> None:
    text = """t (float[2,7] x, int64 n) => (int64 y)
    { s = SplitToSequence<axis=1>(x, n)  y = SequenceLength(s) }"""
    outcome = SequenceToSplit().apply(make_known(text, n=np.int64(3)))
    assert "as a whole" in outcome.refusals[0].reason


SPLIT = "a, b, c = Split<axis=1>(x, s)"


@pytest.mark.parametrize(
    ("item", "body", "goes"),
    [
        (JoinSplits(), f"{SPLIT}  d = Concat<axis=-2>(a, b, c)  y = Neg(d)  z = Neg(a)", True),
        (JoinSplits(), f"{SPLIT}  d = Concat<axis=1>(a, c, b)  y = Neg(d)  z = Neg(a)", False),
        (JoinSplits(), f"{SPLIT}  d = Concat<axis=1>(a, b)  y = Neg(d)  z = Neg(a)", False),
        (JoinSplits(), f"{SPLIT}  y = Concat<axis=1>(a, b, c)  z = Neg(a)", False),  # an output
        (JoinSplits(), "a, b = Split<axis=2, num_outputs=2>(x)  d = Concat<axis=1>(a, b)  y = Neg(d)  z = Neg(x)", False),
        (SplitJoins(), "d = Concat<axis=1>(w, x, w)  a, b, c = Split<axis=1>(d, t)  y = Neg(b)  z = Add(a, c)", True),
        (SplitJoins(), "d = Concat<axis=1>(w, x)  a, b = Split<axis=1>(d, u)  y = Neg(b)  z = Neg(d)", True),
        (SplitJoins(), "d = Concat<axis=1>(x, w)  a, b = Split<axis=1>(d, u)  y = Neg(b)  z = Neg(a)", False),
        (SplitJoins(), "d = Concat<axis=1>(w, x)  y, b = Split<axis=1>(d, u)  z = Neg(b)", False),
        (SplitJoins(), "d = Concat<axis=2>(x, x)  a, b = Split<axis=1>(d, v)  y = Neg(b)  z = Neg(a)", False),
    ],
)  # fmt: skip
def test_split_and_concat_undo_each_other(apply_pass, make_known, item, body, goes) -> None:
    text = """t (float[2,6,4] x, float[2,3,4] w, int64[3] s, int64[3] t, int64[2] u, int64[2] v)
    => (float[] y, float[] z)"""
    model = make_known(f"{text} {{ {body} }}", s=_i(1, 2, 3), t=_i(3, 6, 3), u=_i(3, 6), v=_i(3, 3))
    ops, outcome, _ = apply_pass(item, model)
    gone = "Concat" if isinstance(item, JoinSplits) else "Split"
    assert (gone not in ops) == goes == bool(outcome.changes)


@pytest.mark.parametrize(
    ("body", "narrow"),
    [
        ("a = Gather(x, n)  b = Gather<axis=1>(x, n)  y = Neg(a)  z = Neg(b)", True),
        ("a = Gather(x, n)  y = Neg(a)  b = Cast<to=1>(n)  z = Neg(b)", False),  # read as a value
        ("a = Gather(x, few)  y = Neg(a)  z = Neg(x)", False),  # not worth a second type
        ("a = Gather(x, far)  y = Neg(x)  z = Neg(x)", False),
    ],
)
def test_indices_become_narrow(make_known, body, narrow) -> None:
    text = "t (float[9,9] x, int64[80] n, int64[2] few, int64[80] far) => (float[] y, float[] z)"
    far = np.full(80, 2**40)
    model = make_known(f"{text} {{ {body} }}", n=np.arange(80) % 9 - 9, few=_i(1, -2), far=far)
    assert NarrowIndices().apply(model).changes == int(narrow)
    kinds = [v.dtype for v in model.graph.initializers.values()]
    assert (ir.DataType.INT32 in kinds) == narrow


@pytest.mark.parametrize(("source", "target", "goes"), [("int32", 7, True), ("int16", 7, False)])
def test_indices_are_not_cast(apply_pass, make_known, source, target, goes) -> None:
    text = f"""t (float[9,3] x, {source}[2] i, {source}[2] zero) => (float[] y)
    {{ m = Mul(i, zero)  n = Cast<to={target}>(m)  y = Gather(x, n) }}"""
    model = make_known(text, zero=np.zeros(2, source))
    outcome = NarrowIndices().apply(model)
    assert outcome.changes == int(goes)
    last = next(n for n in model.graph if n.op_type == "Gather")
    assert (last.inputs[1].producer().op_type == "Mul") == goes


def test_narrow_indices_pick_the_same(apply_pass, make_known) -> None:
    text = "t (float[9,3] x, int64[80] n) => (float[] y) { y = Gather(x, n) }"
    apply_pass(NarrowIndices(), make_known(text, n=np.arange(80) % 18 - 9))
