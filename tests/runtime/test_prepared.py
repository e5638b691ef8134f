"""Kernels prepared for constants compute the same, bit for bit, as when these are inputs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import KernelError

R = np.random.default_rng(3)
F = np.float32
X = R.normal(size=(2, 3, 6, 5)).astype(F)
CHANNEL = [R.uniform(0.5, 2, 3).astype(F) for _ in range(4)]


def ints(*values: int):
    return np.array(values, np.int64)


CASES = {
    "slice": ("Slice(x, a, b, c, d)", X, [ints(1, -4), ints(6, -1), ints(2, -1), ints(2, 1)]),
    "slice without axes": ("Slice(x, a, b)", X, [ints(0, 1), ints(9, 2)]),
    "slice backwards": ("Slice(x, a, b, c, d)", X, [ints(-1), ints(-99), ints(2), ints(-1)]),
    "unsqueeze": ("Unsqueeze(x, a)", X, [ints(-1, 1)]),
    "squeeze": ("Squeeze(x, a)", X[:1, :, :1], [ints(-2, 0)]),
    "reshape": ("Reshape(x, a)", X, [ints(6, -1)]),
    "reshape that keeps": ("Reshape(x, a)", X, [ints(0, -1, 5)]),
    "batch norm": ("BatchNormalization<epsilon = 0.01>(x, a, b, c, d)", X, CHANNEL),
    "gemm": ("Gemm<transB = 1>(x, a, b)", X[0, 0], [X[1, 1], R.normal(size=6).astype(F)]),
    "gemm with factors": ("Gemm<alpha = 0.5, beta = 2.0>(x, a, b)", X[0, 0], [X[0, 0].T.copy(), X[0, 0, 0, :1]]),
}  # fmt: skip


def sessions(node: str, x, others):
    """With the other inputs as graph inputs, and with them as initialisers."""
    names = "abcd"[: len(others)]
    declared = ", ".join(
        f"{ir.DataType.from_numpy(v.dtype)}[] {n}".lower()
        for n, v in zip(names, others, strict=True)
    )
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[] x, {declared}) => (float[] y) {{ y = {node} }}'
    both = []
    for constant in (False, True):
        model = ir.from_onnx_text(text)
        for value, array in zip([*model.graph.inputs], (x, *others), strict=True):
            value.shape = ir.Shape(array.shape)
        model.graph.outputs[0].shape = None
        if constant:
            for value, array in zip(model.graph.inputs[1:], others, strict=True):
                value.const_value = ir.tensor(array, name=value.name)
                model.graph.register_initializer(value)
            del model.graph.inputs[1:]
        both.append(Session(model))
    return both


@pytest.mark.parametrize("name", CASES)
def test_same_bits(name) -> None:
    node, x, others = CASES[name]
    plain, prepared = sessions(node, x, others)
    wanted = plain.run({"x": x, **dict(zip("abcd", others, strict=False))})["y"]
    got = prepared.run({"x": x})["y"]
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("node", "others"),
    [
        ("Slice(x, a, b, c)", [ints(0), ints(1), ints(9)]),
        ("Slice(x, a, b)", [ints(0, 1), ints(1)]),
        ("Unsqueeze(x, a)", [ints(1, 1)]),
        ("Squeeze(x, a)", [ints(1)]),
        ("Reshape(x, a)", [ints(7, -1)]),
    ],
)
def test_wrong_constants_are_reported_by_the_run(node, others) -> None:
    session = sessions(node, X, others)[1]
    with pytest.raises(KernelError, match=node.partition("(")[0]):
        session.run({"x": X})


def test_small_convolutions() -> None:
    """By one gather; compared with the sum over the definition."""
    x, w = R.normal(size=(2, 4, 7)).astype(F), R.normal(size=(6, 2, 3)).astype(F)
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,4,7] x, float[6,2,3] w) => (float[2,6,4] y)'
        "{ y = Conv<group = 2, strides = [2], dilations = [1], pads = [1, 1]>(x, w) }"
    )
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1))).astype(np.float64)
    wanted = np.zeros((2, 6, 4))
    for m in range(6):
        for o in range(4):
            first = 2 * (m // 3)
            seen = padded[:, first : first + 2, 2 * o : 2 * o + 3]
            wanted[:, m, o] = (seen * w[m]).sum((1, 2))
    np.testing.assert_allclose(Session(model).run({"x": x, "w": w})["y"], wanted, rtol=0, atol=1e-6)
