"""Padding folds; and where it must not."""

from __future__ import annotations

import numpy as np
import pytest

from passes.pad_into_conv import PadIntoConv

R = np.random.default_rng(1)


def _f(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) + 0.3).astype(np.float32)


PAD = "t (float[1,4,6,6] x, float[8,4,3,3] w, int64[8] p, float k) => (float[] y)"


def test_pad_folds(apply_pass, make) -> None:
    text = f"{PAD} {{ q = Pad(x, p, k)  y = Conv<pads=[0,1,0,1], strides=[2,2]>(q, w) }}"
    model = make(text, w=_f(8, 4, 3, 3), p=np.array([0, 0, 0, 1, 0, 0, 2, 1]), k=np.float32(0))
    ops, _, copy = apply_pass(PadIntoConv(), model)
    assert ops == ["Conv"]
    assert list(copy.graph[0].attributes["pads"].as_ints()) == [0, 2, 2, 2]


@pytest.mark.parametrize(
    ("pads", "value", "mode", "reason"),
    [
        ([0, 0, 0, 1, 0, 0, 0, 1], 1.0, "constant", "zeros"),
        ([0, 0, 1, 1, 0, 0, 1, 1], 0.0, "reflect", "constant"),
        ([0, 0, -1, 0, 0, 0, 0, 0], 0.0, "constant", "crops"),
        ([0, 1, 0, 0, 0, -1, 0, 0], 0.0, "constant", "channels"),
    ],
)
def test_pad_must_not(apply_pass, make, pads, value, mode, reason) -> None:
    text = f'{PAD} {{ q = Pad<mode="{mode}">(x, p, k)  y = Conv(q, w) }}'
    model = make(text, w=_f(8, 4, 3, 3), p=np.array(pads), k=np.float32(value))
    ops, outcome, _ = apply_pass(PadIntoConv(), model)
    assert ops == ["Pad", "Conv"]
    assert reason in outcome.refusals[0].reason


def test_pad_with_axes_folds(apply_pass, make) -> None:
    text = """t (float[1,2,5] x, float[2,2,3] w, int64[2] p, int64[1] a) => (float[] y)
    { q = Pad(x, p, , a)  y = Conv(q, w) }"""
    model = make(text, w=_f(2, 2, 3), p=np.array([2, 1]), a=np.array([-1]))
    ops, _, copy = apply_pass(PadIntoConv(), model)
    assert ops == ["Conv"]
    assert list(copy.graph[0].attributes["pads"].as_ints()) == [2, 1]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("q = Pad(x, p, k)  y = Conv(q, w)  z = Relu(q)", "used 2 times"),
        ("z = Pad(x, p, k)  y = Conv(z, w)", "graph output"),
        ('q = Pad(x, p, k)  y = Conv<auto_pad="SAME_UPPER">(q, w)  z = Relu(y)', "automatically"),
    ],
)
def test_pad_that_others_see_stays(apply_pass, make, body, reason) -> None:
    text = f"{PAD.replace('[] y', '[] y, float[] z')} {{ {body} }}"
    model = make(text, w=_f(8, 4, 3, 3), p=np.array([0, 0, 1, 1, 0, 0, 1, 1]), k=np.float32(0))
    ops, outcome, _ = apply_pass(PadIntoConv(), model)
    assert "Pad" in ops
    assert reason in outcome.refusals[0].reason


def test_pad_by_computed_sizes_stays(make) -> None:
    model = make(f"{PAD} {{ q = Pad(x, p, k)  y = Conv(q, w) }}", w=_f(8, 4, 3, 3))
    assert PadIntoConv().apply(model).changes == 0
