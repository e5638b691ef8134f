"""BatchNormalization, scales, biases and padding fold; and where they must not."""

from __future__ import annotations

import numpy as np
import pytest

from passes.fold_affine import FoldAffine
from passes.fold_batchnorm import FoldBatchNorm
from passes.pad_into_conv import PadIntoConv

R = np.random.default_rng(1)


def _f(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) + 0.3).astype(np.float32)


def _statistics(count: int) -> dict[str, np.ndarray]:
    return {"g": _f(count), "b": _f(count), "m": _f(count), "v": np.abs(_f(count)) + 0.1}


BN = "float[{c}] g, float[{c}] b, float[{c}] m, float[{c}] v"


@pytest.mark.parametrize(
    ("node", "shape", "weight", "channels"),
    [
        ("Conv<pads=[1,1,1,1]>(x, w)", "1,4,6,6", (8, 4, 3, 3), 8),
        ("Conv<group=4>(x, w)", "1,4,6,6", (8, 1, 3, 3), 8),
        ("Conv(x, w)", "1,4,9", (8, 4, 3), 8),
        ("ConvTranspose<strides=[2,2]>(x, w)", "1,4,5,5", (4, 6, 2, 2), 6),
        ("ConvTranspose<group=2>(x, w)", "1,4,5,5", (4, 3, 2, 2), 6),
        ("Gemm(x, w)", "3,4", (4, 5), 5),
        ("Gemm<transB=1>(x, w)", "3,4", (5, 4), 5),
    ],
)
def test_batchnorm_folds(apply_pass, make, node, shape, weight, channels) -> None:
    weight_type = ",".join(map(str, weight))
    text = f"""t (float[{shape}] x, float[{weight_type}] w, {BN.format(c=channels)}) => (float[] y)
    {{ c = {node}  y = BatchNormalization<epsilon=0.01>(c, g, b, m, v) }}"""
    model = make(text, w=_f(*weight), **_statistics(channels))
    ops, outcome, copy = apply_pass(FoldBatchNorm(), model)
    assert ops == [node.split("(")[0].split("<")[0]]
    assert outcome.changes == 1
    assert copy.graph[0].name == "n0"


CONV = "c = Conv(x, w)"


@pytest.mark.parametrize(
    ("extra", "body", "reason"),
    [
        ("", f"{CONV}  y = BatchNormalization(c, g, b, m, v)  z = Relu(c)", "used 2 times"),
        ("", f"{CONV}  y = BatchNormalization(c, g, b, m, v)  z = Identity(y)", None),
        ("", "c = Relu(x)  y = BatchNormalization(c, g, b, m, v)  z = Relu(y)", "no Conv"),
    ],
)
def test_batchnorm_must_not(apply_pass, make, extra, body, reason) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}{extra}) =>
    (float[] y, float[] z) {{ {body} }}"""
    ops, outcome, _ = apply_pass(FoldBatchNorm(), make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    if reason is None:
        assert "BatchNormalization" not in ops
    else:
        assert "BatchNormalization" in ops
        assert reason in outcome.refusals[0].reason


def test_batchnorm_of_a_graph_output(apply_pass, make) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y, float[] c)
    {{ {CONV}  y = BatchNormalization(c, g, b, m, v) }}"""
    ops, outcome, _ = apply_pass(FoldBatchNorm(), make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    assert ops == ["Conv", "BatchNormalization"]
    assert "graph output" in outcome.refusals[0].reason


def test_batchnorm_with_a_weight_that_is_an_input(apply_pass, make) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y)
    {{ {CONV}  y = BatchNormalization(c, g, b, m, v) }}"""
    ops, outcome, _ = apply_pass(FoldBatchNorm(), make(text, **_statistics(4)))
    assert "BatchNormalization" in ops
    assert outcome.refusals[0].reason == "w is not a constant"


def test_batchnorm_shared_weight_keeps_the_other_user(apply_pass, make) -> None:
    text = f"""t (float[1,4,6,6] x, float[4,4,3,3] w, {BN.format(c=4)}) => (float[] y, float[] z)
    {{ {CONV}  y = BatchNormalization(c, g, b, m, v)  z = Conv(x, w) }}"""
    ops, _, _ = apply_pass(FoldBatchNorm(), make(text, w=_f(4, 4, 3, 3), **_statistics(4)))
    assert ops == ["Conv", "Conv"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", ["8,1,1", "1,8,1,1", "1", ""])
def test_affine_folds(apply_pass, make, op, shape) -> None:
    sizes = [int(s) for s in shape.split(",") if s]
    text = f"""t (float[1,4,6,6] x, float[8,4,3,3] w, float[8] q, float[{shape}] k) => (float[] y)
    {{ c = Conv(x, w, q)  y = {op}(c, k) }}"""
    model = make(text, w=_f(8, 4, 3, 3), q=_f(8), k=_f(*sizes) + np.float32(2))
    ops, _, _ = apply_pass(FoldAffine(), model)
    assert ops == ["Conv"]


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_affine_folds_on_the_other_side(apply_pass, make, op) -> None:
    text = f"""t (float[3,4] x, float[4,5] w, float[5] k) => (float[] y)
    {{ c = Gemm(x, w)  y = {op}(k, c) }}"""
    assert apply_pass(FoldAffine(), make(text, w=_f(4, 5), k=_f(5)))[0] == ["Gemm"]


@pytest.mark.parametrize(
    ("op", "shape", "operands", "reason"),
    [
        ("Add", "6", "c, k", "one value for each channel"),
        ("Add", "8,6,6", "c, k", "one value for each channel"),
        ("Add", "2,8,1,1", "c, k", "one value for each channel"),
        ("Add", "1,1,8,1,1", "c, k", "one value for each channel"),
        ("Sub", "8,1,1", "k, c", None),
        ("Div", "8,1,1", "k, c", None),
    ],
)
def test_affine_must_not(apply_pass, make, op, shape, operands, reason) -> None:
    sizes = [int(s) for s in shape.split(",")]
    text = f"""t (float[1,4,8,8] x, float[8,4,3,3] w, float[{shape}] k) => (float[] y)
    {{ c = Conv(x, w)  y = {op}({operands}) }}"""
    ops, outcome, _ = apply_pass(FoldAffine(), make(text, w=_f(8, 4, 3, 3), k=_f(*sizes)))
    assert ops == ["Conv", op]
    assert [r.reason for r in outcome.refusals if reason and reason in r.reason] or reason is None


def test_division_by_zero_is_left_alone(make) -> None:
    text = """t (float[3,4] x, float[4,5] w, float[5] k) => (float[] y)
    { c = Gemm(x, w)  y = Div(c, k) }"""
    outcome = FoldAffine().apply(make(text, w=_f(4, 5), k=np.zeros(5, np.float32)))
    assert outcome.changes == 0
    assert "zero" in outcome.refusals[0].reason


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
