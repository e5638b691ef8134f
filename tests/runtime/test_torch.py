"""The same kernels on torch tensors: equal values, and gradients that gradcheck confirms."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import FeedError, UnsupportedOpError

torch = pytest.importorskip("torch")

X = "float64[1,4,6,6] x"
SEQ = "float64[3,2,4] x"


def graph(text: str, opset: int = 20) -> Session:
    """A model of one input x (and float64 initialisers), one output y."""
    return Session(ir.from_onnx_text(f'<ir_version: 10, opset_import: ["": {opset}]>\ng {text}'))


def weights(model: Session) -> dict[str, Any]:
    """Random float64 tensors in place of the initialisers named w..."""
    rng = np.random.default_rng(1)
    found = {}
    for name, value in model._graph.initializers.items():
        if name.startswith("w"):
            found[name] = torch.tensor(rng.normal(size=value.shape.numpy()) * 0.5)
    return found


def zeros(name: str, *shape: int) -> str:
    """An initialiser of zeros, to be replaced."""
    count = int(np.prod(shape))
    return f"double[{','.join(map(str, shape))}] {name} = {{{', '.join(['0'] * count)}}}"


CASES = {
    "conv": (f"(double[1,4,6,6] x) => (double[N,M,H,W] y) <{zeros('w', 2, 4, 3, 3)}, {zeros('wb', 2)}>"
             " { y = Conv<pads=[1,0,2,1], strides=[2,1]>(x, w, wb) }"),
    "depthwise": (f"(double[1,4,6,6] x) => (double[N,M,H,W] y) <{zeros('w', 4, 1, 3, 3)}>"
                  " { y = Conv<group=4, dilations=[2,1]>(x, w) }"),
    "conv transpose": (f"(double[1,4,3,3] x) => (double[N,M,H,W] y) <{zeros('w', 4, 1, 3, 3)}, {zeros('wb', 2)}>"
                       " { y = ConvTranspose<group=2, strides=[2,2], output_padding=[1,0], pads=[1,1,0,1]>(x, w, wb) }"),
    "gemm": (f"(double[3,4] x) => (double[N,M] y) <{zeros('w', 5, 4)}, {zeros('wb', 5)}>"
             " { y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, w, wb) }"),
    "matmul": f"(double[2,3,4] x) => (double[N,H,M] y) <{zeros('w', 4, 5)}> {{ y = MatMul(x, w) }}",
    "einsum": f"(double[2,3,4] x) => (double[N,H,M] y) <{zeros('w', 4, 5)}> {{ y = Einsum<equation=\"bij,jk->bik\">(x, w) }}",
    "max pool": "(double[1,2,6,6] x) => (double[N,M,H,W] y) { y = MaxPool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,0], ceil_mode=1>(x) }",
    "average pool": "(double[1,2,5,5] x) => (double[N,M,H,W] y) { y = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x) }",
    "average pool with pads": "(double[1,2,5,5] x) => (double[N,M,H,W] y) { y = AveragePool<kernel_shape=[3,2], pads=[1,1,1,1], count_include_pad=1, ceil_mode=1>(x) }",
    "lp pool": "(double[1,2,4,4] x) => (double[N,M,H,W] y) { y = LpPool<kernel_shape=[2,2], p=2>(x) }",
    "global average pool": "(double[2,3,4,4] x) => (double[N,M,H,W] y) { y = GlobalAveragePool(x) }",
    "global max pool": "(double[2,3,4] x) => (double[N,M,H] y) { y = GlobalMaxPool(x) }",
    "layer norm": (f"(double[2,3,4] x) => (double[N,H,M] y) <{zeros('w', 4)}, {zeros('wb', 4)}>"
                   " { y = LayerNormalization(x, w, wb) }"),
    "instance norm": (f"(double[2,3,4] x) => (double[N,H,M] y) <{zeros('w', 3)}, {zeros('wb', 3)}>"
                      " { y = InstanceNormalization(x, w, wb) }"),
    "batch norm": (f"(double[2,3,4] x) => (double[N,H,M] y) <{zeros('w', 3)}, {zeros('wb', 3)}, {zeros('m', 3)},"
                   " double[3] v = {1, 2, 3}> { y = BatchNormalization(x, w, wb, m, v) }"),
    "lrn": "(double[1,5,2,2] x) => (double[N,M,H,W] y) { y = LRN<size=3, alpha=0.5>(x) }",
    "lp norm": "(double[3,4] x) => (double[N,M] y) { y = LpNormalization(x) }",
    "softmax": "(double[3,4] x) => (double[N,M] y) { a = Softmax(x)  b = LogSoftmax<axis=0>(x)  y = Mul(a, b) }",
    "activations": ("(double[3,4] x) => (double[N,M] y) { a = Sigmoid(x)  b = Gelu(x)  c = HardSwish(a)  d = Mish(b)"
                    "  e = Softplus(c)  f = Elu(d)  g = Selu(e)  h = Celu(f)  i = LeakyRelu(g)  j = Tanh(h)"
                    "  k = Erf(i)  l = Gelu<approximate=\"tanh\">(j)  y = Sum(k, l, e) }"),
    "relu and clip": "(double[3,4] x) => (double[N,M] y) <double lo = {-0.5}, double hi = {0.7}> { a = Relu(x)  b = Clip(x, lo, hi)  y = Add(a, b) }",
    "prelu": f"(double[3,4] x) => (double[N,M] y) <{zeros('w', 4)}> {{ y = PRelu(x, w) }}",
    "arithmetic": (f"(double[3,4] x) => (double[N,M] y) <{zeros('w', 4)}, double two = {{2}}, double e = {{3}}>"
                   " { a = Pow(x, two)  b = Exp(w)  c = Div(a, b)  d = Sub(c, x)  f = Max(d, w)  s = Sin(f)  y = Mul(s, x) }"),
    "reductions": ("(double[2,3,4] x) => (double[N] y) <int64[2] axes = {1, 2}> { a = ReduceMean<keepdims=0>(x, axes)"
                   "  b = ReduceMax<keepdims=0>(x, axes)  c = ReduceL2<keepdims=0>(x, axes)  d = ReduceLogSumExp<keepdims=0>(x, axes)"
                   "  e = ReduceSumSquare<keepdims=0>(x, axes)  f = ReduceProd<keepdims=0>(x, axes)  y = Sum(a, b, c, d, e, f) }"),
    "shapes": ("(double[2,3,4] x) => (double[N,M] y) <int64[2] s = {4, -1}, int64[1] first = {1}, int64[1] last = {9}, int64[1] one = {1},"
               " int64[4] pads = {0, 1, 0, 1}, int64[2] reps = {1, 2}> { a = Transpose<perm=[2,0,1]>(x)  b = Reshape(a, s)"
               "  c = Slice(b, first, last, one)  d = Concat<axis=1>(b, c)  e, f = Split<axis=1, num_outputs=2>(d)"
               "  g = Pad<mode=\"reflect\">(e, pads)  h = Tile(g, reps)  i = Unsqueeze(h, one)  j = Squeeze(i, one)  y = CumSum(j, one) }"),
    "gather": ("(double[4,3] x) => (double[N,M] y) <int64[3] at = {2, 0, -1}, int64[1,3] el = {1, 3, 1}, int64[2,1] nd = {1, 3}, int64[1,3] to = {0, 2, 3}>"
               " { a = Gather(x, at)  b = GatherElements<axis=0>(x, el)  c = GatherND(x, nd)  d = ScatterElements<axis=0>(x, to, b)"
               "  e = Concat<axis=0>(a, b, c)  y = Concat<axis=0>(d, e) }"),
    "scatter nd": ("(double[4,3] x) => (double[N,M] y) <int64[2,1] at = {3, 1}> { u = Gather<axis=0>(x, p)  y = ScatterND<reduction=\"add\">(x, at, u) }"
                   .replace("int64[2,1] at", "int64[2] p = {0, 2}, int64[2,1] at")),
    "where": f"(double[3,4] x) => (double[N,M] y) <{zeros('w', 4)}> {{ c = Greater(x, w)  y = Where(c, x, w) }}",
    "resize": ("(double[1,1,4,4] x) => (double[N,M,H,W] y) <float[4] scales = {1, 1, 1.5, 0.75}>"
               " { a = Resize<mode=\"linear\">(x, , scales)  b = Resize<mode=\"cubic\">(x, , scales)  y = Mul(a, b) }"),
    "lstm": (f"(double[3,2,4] x) => (double[T,D,N,H] y) <{zeros('w', 2, 12, 4)}, {zeros('wr', 2, 12, 3)}, {zeros('wb', 2, 24)}, {zeros('wp', 2, 9)}>"
             " { y, h, c = LSTM<hidden_size=3, direction=\"bidirectional\">(x, w, wr, wb, , , , wp) }"),
    "gru": (f"(double[3,2,4] x) => (double[T,D,N,H] y) <{zeros('w', 1, 9, 4)}, {zeros('wr', 1, 9, 3)}, {zeros('wb', 1, 18)}, int32[2] n = {{3, 2}}>"
            " { y, h = GRU<hidden_size=3, linear_before_reset=1>(x, w, wr, wb, n) }"),
    "attention by hand": (f"(double[1,3,4] x) => (double[N,H,M] y) <{zeros('w', 4, 4)}, {zeros('wk', 4, 4)}, {zeros('wv', 4, 4)}>"
                          " { q = MatMul(x, w)  k = MatMul(x, wk)  v = MatMul(x, wv)  t = Transpose<perm=[0,2,1]>(k)"
                          "  s = MatMul(q, t)  p = Softmax(s)  y = MatMul(p, v) }"),
    "if": ("(double[3] x) => (double[3] y) <bool c = {1}> { y = If (c) < then_branch = t () => (double[3] a) { a = Mul(x, x) },"
           " else_branch = e () => (double[3] b) { b = Neg(x) } > }"),
    "loop": ("(double[3] x) => (double[3] y) <int64 m = {3}, bool go = {1}> { y = Loop (m, go, x) <"
             " body = b (int64 i, bool c, double[3] s) => (bool c2, double[3] s2) { c2 = Identity(c)  s2 = Mul(s, x) } > }"),
}  # fmt: skip


def inputs_of(model: Session) -> Any:
    (info,) = model.inputs
    values = np.random.default_rng(0).permutation(int(np.prod(info.shape))) / 7.3 - 1.1
    return values.reshape(info.shape)


@pytest.mark.parametrize("name", CASES)
def test_torch_computes_what_numpy_computes(name: str) -> None:
    model = graph(CASES[name])
    x, w = inputs_of(model), weights(model)
    ours = model.run({"x": x}, parameters={k: v.numpy() for k, v in w.items()})["y"]
    theirs = model.run({"x": torch.tensor(x)}, parameters=w)["y"]
    assert isinstance(ours, np.ndarray)
    assert isinstance(theirs, torch.Tensor)
    assert theirs.dtype == torch.float64
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    model = graph(CASES[name])
    x, w = torch.tensor(inputs_of(model), requires_grad=True), weights(model)
    names = list(w)
    values = [v.requires_grad_() for v in w.values()]

    def run(x: Any, *given: Any) -> Any:
        return model.run({"x": x}, parameters=dict(zip(names, given, strict=True)))["y"]

    assert torch.autograd.gradcheck(run, (x, *values), eps=1e-6, atol=1e-5)


def test_a_parameter_replaces_an_initialiser_and_what_was_folded_from_it() -> None:
    model = graph(
        "(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { d = Mul(w, w)  y = Mul(x, d) }"
    )
    x = np.array([1, 1], np.float32)
    assert model.run({"x": x})["y"].tolist() == [1, 4]
    assert model.run({"x": x}, parameters={"w": x * 3})["y"].tolist() == [9, 9]
    assert model.run({"x": x})["y"].tolist() == [1, 4]


def test_an_unknown_parameter() -> None:
    model = graph("(float[2] x) => (float[2] y) { y = Neg(x) }")
    with pytest.raises(FeedError, match="no initialiser named 'w'"):
        model.run({"x": np.zeros(2, np.float32)}, parameters={"w": np.zeros(2, np.float32)})


def test_no_gradient_is_lost_silently() -> None:
    model = graph("(float[4] x) => (float[4] y) <float s = {0.1}, uint8 z = {3}>"
                  " { q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }")  # fmt: skip
    x = torch.linspace(0, 1, 4)
    assert torch.allclose(model.run({"x": x})["y"], x, atol=0.05)
    with pytest.raises(UnsupportedOpError, match=r"QuantizeLinear.* has no gradient"):
        model.run({"x": x.requires_grad_()})


def test_feeds_are_checked() -> None:
    model = graph("(float[2] x) => (float[2] y) { y = Neg(x) }")
    with pytest.raises(FeedError, match="dtype float64, expected float32"):
        model.run({"x": torch.zeros(2, dtype=torch.float64)})
    with pytest.raises(FeedError, match=r"shape \[3\], expected \[2\]"):
        model.run({"x": torch.zeros(3)})
