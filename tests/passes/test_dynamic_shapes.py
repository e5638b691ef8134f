"""Shape arithmetic of dynamic dimensions; and what must stay."""

from __future__ import annotations

import numpy as np
import pytest

from passes.share_shapes import ShareShapes
from passes.unflatten_transposes import UnflattenTransposes


def _i(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@pytest.mark.parametrize(
    ("second", "shared"),
    [
        ("Shape<start=0, end=1>(r)", True),
        ("Gather(s, zero)", True),
        ("Gather(s, one)", False),  # another dimension
        ("Gather(u, zero)", False),  # of an input whose dimension has no name
        ("Squeeze(n)", False),  # a number, not a vector
        ("Cast<to=6>(n)", False),  # another type
    ],
)
def test_equal_shapes_are_computed_once(apply_pass, make_known, second, shared) -> None:
    text = f"""t (float[N,M] x, float[?,3] w, int64[1] zero, int64[1] one) =>
    (int64[] y, float[N,M] z)
    {{ r = Relu(x)  n = Shape<start=0, end=1>(x)  s = Shape(r)  u = Shape(w)  b = {second}
      c = Cast<to=7>(n)  d = Cast<to=7>(b)  y = Add(c, d)  z = Neg(r) }}"""
    model = make_known(text, zero=_i(0), one=_i(1))
    _, _, after = apply_pass(ShareShapes(), model, x=(2, 3), w=(2, 3))
    values = {v.name: v for v in after.graph.all_nodes() for v in v.outputs}
    first, other = (values[name].producer().inputs[0].name for name in "cd")
    assert (first == other) == shared


def test_a_shape_that_is_an_output_stays(apply_pass, make_known) -> None:
    text = """t (float[N,M] x) => (int64[] y, int64[] z)
    { r = Relu(x)  y = Shape(x)  z = Shape(r) }"""
    ops, outcome, _ = apply_pass(ShareShapes(), make_known(text), x=(2, 3))
    assert (outcome.changes, ops.count("Shape")) == (0, 2)


@pytest.mark.parametrize(
    ("last", "perm", "joined", "turned"),
    [
        ((2, 4, 3, 5), (0, 2, 1), (8, 5, 3), (0, 1, 3, 2)),
        ((2, 4, 3, 5), (0, 1, 2), (8, 5, 3), None),  # Reshape alone moves the elements
        ((4, 2, 3, 5), (0, 2, 1), (8, 5, 3), None),  # parted into other axes
        ((2, 4, 3, 5), (1, 0, 2), (5, 8, 3), None),  # the joined axis moves
        ((2, 4, 3, 5), (0, 2, 1), (8, 3, 5), None),  # other axes were joined before
    ],
)
def test_transposes_of_joined_axes_are_direct(
    apply_pass, make_known, last, perm, joined, turned
) -> None:
    text = f"""t (float[2,4,5,3] x, int64[3] j, int64[4] p) => (float[] z)
    {{ a = Reshape(x, j)  b = Transpose<perm=[{",".join(map(str, perm))}]>(a)
      y = Reshape(b, p)  z = Neg(y) }}"""
    model = make_known(text, j=_i(*joined), p=_i(*last))
    ops, _, after = apply_pass(UnflattenTransposes(), model)
    if turned is None:
        assert ops == ["Reshape", "Transpose", "Reshape", "Neg"]
    else:
        assert ops == ["Transpose", "Neg"]
        assert after.graph[0].attributes["perm"].as_ints() == turned


def test_a_transpose_of_joined_axes_that_others_read_stays(apply_pass, make_known) -> None:
    text = """t (float[2,4,5,3] x, int64[3] j, int64[4] p) => (float[] y, float[] z)
    { a = Reshape(x, j)  b = Transpose<perm=[0,2,1]>(a)  c = Reshape(b, p)  y = Neg(c)  z = Neg(b) }"""
    ops, outcome, _ = apply_pass(
        UnflattenTransposes(), make_known(text, j=_i(8, 5, 3), p=_i(2, 4, 3, 5))
    )
    assert len(ops) == 5
    assert "others" in outcome.refusals[0].reason
