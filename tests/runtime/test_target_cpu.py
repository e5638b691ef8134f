"""The 16-bit saturation of x86 without VNNI, against sums done by hand, number by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from infer_runtime.target_cpu import lost_by_saturation

RNG = np.random.default_rng(0)


def by_hand(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a [M, K] times b [K, N] with each pair of products clipped to 16 bits, in plain Python."""
    rows = []
    for row in a.astype(int).tolist():
        line = []
        for column in b.astype(int).T.tolist():
            products = [x * y for x, y in zip(row, column, strict=True)] + [0]
            pairs = [products[i] + products[i + 1] for i in range(0, len(row), 2)]
            line.append(sum(max(-32768, min(32767, p)) for p in pairs))
        rows.append(line)
    return np.array(rows)


def test_the_case_of_the_manual() -> None:
    a, b = np.array([[255, 255]], np.uint8), np.array([[127], [127]], np.int8)
    assert lost_by_saturation(a, b).tolist() == [[32767 - 2 * 255 * 127]]
    assert lost_by_saturation(a, np.array([[127], [-127]], np.int8)).tolist() == [[0]]
    assert lost_by_saturation(a, np.array([[64], [64]], np.int8)).tolist() == [[0]]  # 7 bits


@pytest.mark.parametrize("k", [1, 2, 7, 16])
def test_matrices_by_hand(k: int) -> None:
    a, b = (
        RNG.integers(0, 256, (4, k)).astype(np.uint8),
        RNG.integers(-128, 128, (k, 5)).astype(np.int8),
    )
    exact = a.astype(int) @ b.astype(int)
    assert (exact + lost_by_saturation(a, b)).tolist() == by_hand(a, b).tolist()


def run(text: str, target: str | None, **feeds: Any) -> np.ndarray:
    model = ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": 20]>\ng {text}')
    return Session(model, target_cpu=target).run(feeds)["y"]


MATMUL = "(uint8[M,K] x, int8[K,N] w) => (int32[M,N] y) { y = MatMulInteger(x, w) }"


def test_matmul_integer() -> None:
    a, b = (
        RNG.integers(0, 256, (3, 9)).astype(np.uint8),
        RNG.integers(-128, 128, (9, 4)).astype(np.int8),
    )
    assert run(MATMUL, "avx2", x=a, w=b).tolist() == by_hand(a, b).tolist()
    assert run(MATMUL, None, x=a, w=b).tolist() == (a.astype(int) @ b.astype(int)).tolist()


def test_batches_of_matrices() -> None:
    text = MATMUL.replace("[M,K]", "[B,M,K]").replace("[M,N]", "[B,M,N]")
    a, b = (
        RNG.integers(0, 256, (2, 3, 6)).astype(np.uint8),
        RNG.integers(-128, 128, (6, 4)).astype(np.int8),
    )
    assert run(text, "avx2", x=a, w=b).tolist() == [by_hand(m, b).tolist() for m in a]


def conv_by_hand(x: np.ndarray, w: np.ndarray, zero: int) -> np.ndarray:
    """x [1, C, H, W], w [M, C, 3, 3], padded by one: taps one after the other, channels fastest."""
    padded = np.pad(x[0], [(0, 0), (1, 1), (1, 1)], constant_values=zero)
    height, width = x.shape[2:]
    windows = [padded[:, i : i + 3, j : j + 3] for i in range(height) for j in range(width)]
    a = np.array([v.transpose(1, 2, 0).reshape(-1) for v in windows])
    b = w.transpose(2, 3, 1, 0).reshape(-1, w.shape[0])
    shifted = by_hand(a, b) - zero * b.astype(int).sum(
        axis=0
    )  # engines take the zero point off after
    return shifted.T.reshape(1, w.shape[0], height, width)


CONV = """(uint8[1,C,H,W] x, int8[M,C,3,3] w, uint8 z) => (int32[1,M,H,W] y) {
  y = ConvInteger<pads=[1,1,1,1]>(x, w, z) }"""


def test_convolution_by_hand() -> None:
    x, w = (
        RNG.integers(0, 256, (1, 3, 4, 5)).astype(np.uint8),
        RNG.integers(-128, 128, (2, 3, 3, 3)).astype(np.int8),
    )
    found = run(CONV, "avx2", x=x, w=w, z=np.array(7, np.uint8))
    assert found.tolist() == conv_by_hand(x, w, 7).tolist()
    assert found.tolist() != run(CONV, None, x=x, w=w, z=np.array(7, np.uint8)).tolist()


def test_a_depthwise_convolution_does_not_saturate() -> None:
    text = CONV.replace("int8[M,C,3,3]", "int8[M,1,3,3]").replace("<pads", "<group=2, pads")
    x, w = np.full((1, 2, 3, 3), 255, np.uint8), np.full((2, 1, 3, 3), 127, np.int8)
    feeds = {"x": x, "w": w, "z": np.array(0, np.uint8)}
    assert run(text, "avx2", **feeds).tolist() == run(text, None, **feeds).tolist()


QDQ = """(float[M,4] x) => (float[M,2] y) <float s = {0.5}, uint8 z = {10}, int8[4,2] w = {127, 1, 127, 2, 127, -3, 127, 4},
  float[2] t = {0.01, 0.02}, int8[2] zw = {0, 0}> {
  q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)  b = DequantizeLinear<axis=1>(w, t, zw)  y = MatMul(a, b) }"""


@pytest.mark.parametrize("text", [QDQ, QDQ.replace("(w, t, zw)", "(w, t)")])
def test_float_operators_between_quantisers(text: str) -> None:
    x = np.array([[100, 100, 0, 1]], np.float32)
    q = np.array([[210, 210, 10, 12]], np.uint8)
    w = np.array([[127, 1], [127, 2], [127, -3], [127, 4]], np.int8)
    sums = by_hand(q, w) - 10 * w.astype(int).sum(axis=0)
    np.testing.assert_allclose(run(text, "avx2", x=x), sums * 0.5 * [0.01, 0.02], rtol=1e-5)
    assert run(text, None, x=x)[0, 0] > run(text, "avx2", x=x)[0, 0]  # clipped at 32767


def test_quantised_operators() -> None:
    text = """(uint8[M,K] x, int8[K,N] w) => (uint8[M,N] y) <float s = {1}, float r = {300}, uint8 z = {0}, int8 zw = {0}, uint8 zy = {5}> {
      y = QLinearMatMul(x, s, z, w, s, zw, r, zy) }"""
    a, b = (
        RNG.integers(0, 256, (3, 6)).astype(np.uint8),
        RNG.integers(-128, 128, (6, 4)).astype(np.int8),
    )
    wanted = np.clip(np.rint(by_hand(a, b) / 300) + 5, 0, 255)
    assert run(text, "avx2", x=a, w=b).tolist() == wanted.tolist()


def test_an_unknown_target() -> None:
    with pytest.raises(UsageError, match="target_cpu 'mips': expected one of avx2"):
        run(MATMUL, "mips", x=np.zeros((1, 1), np.uint8), w=np.zeros((1, 1), np.int8))
