"""Random small graphs compute the same before and after all passes."""

from __future__ import annotations

import numpy as np
import pytest

from infer_runtime import Session
from passes.compare import compare_outputs, worst
from passes.facts import facts
from passes.pipeline import optimize
from passes.verify import verify

GRAPHS, GROUPS = 600, 12
TOLERANCE = 1e-5

# What may follow a value `v` of shape [d0, d1, d2]; `u` is any earlier value of that shape.
SAME = [
    "Relu({v})", "Neg({v})", "Sigmoid({v})", "Tanh({v})", "Identity({v})", "Dropout({v})",
    "Clip({v}, lo, hi)", "Clip({v}, lo)", "Add({v}, {u})", "Mul({v}, {u})", "Sub({v}, {u})",
    "Add({v}, k)", "Mul(k, {v})", "Div({v}, k)", "Sub({v}, k)", "Sub(k, {v})", "Add({v}, zero)",
    "Mul({v}, one)", "Softmax<axis=-1>({v})", "Softplus({v})", "Slice({v}, i0, far, i0)",
]  # fmt: skip
# Texts of several nodes that end in a value of the same shape; each names its own with {n}.
BLOCKS = [
    "a{n} = Add({v}, three)  b{n} = Clip(a{n}, zero, six)  c{n} = Mul({v}, b{n})  t{n} = Div(c{n}, six)",
    "a{n} = Add({v}, three)  b{n} = Clip(a{n}, zero, six)  t{n} = Div(b{n}, six)",
    "a{n} = Div({v}, root)  b{n} = Erf(a{n})  c{n} = Add(b{n}, one)  d{n} = Mul({v}, c{n})  t{n} = Mul(d{n}, half)",
    "a{n} = Softplus({v})  b{n} = Tanh(a{n})  t{n} = Mul({v}, b{n})",
    "m{n} = ReduceMean({v}, last)  d{n} = Sub({v}, m{n})  q{n} = Mul(d{n}, d{n})  w{n} = ReduceMean(q{n}, last)  e{n} = Add(w{n}, half)  r{n} = Sqrt(e{n})  s{n} = Div(d{n}, r{n})  g{n} = Mul(s{n}, k)  t{n} = Add(g{n}, k)",
    "a{n} = Transpose<perm=[0,2,1]>({v})  b{n} = Relu(a{n})  t{n} = Transpose<perm=[0,2,1]>(b{n})",
    "a{n} = Transpose<perm=[2,0,1]>({v})  b{n} = Transpose<perm=[2,0,1]>({u})  c{n} = Add(a{n}, b{n})  t{n} = Transpose<perm=[1,2,0]>(c{n})",
    "a{n} = Unsqueeze({v}, i0)  b{n} = Unsqueeze(a{n}, i0)  c{n} = Squeeze(b{n}, i0)  t{n} = Squeeze(c{n}, i0)",
    "a{n} = Reshape({v}, flat)  s{n} = Shape({v})  t{n} = Reshape(a{n}, s{n})",
    "s{n} = Shape<start=0, end=1>({v})  c{n} = Concat<axis=0>(s{n}, minus, size)  t{n} = Reshape({v}, c{n})",
    "a{n} = Cast<to=11>({v})  t{n} = Cast<to=1>(a{n})",
    "a{n} = MatMul({v}, w)  t{n} = Add(a{n}, k)",
    "a{n} = Flatten<axis=2>({v})  b{n} = MatMul(a{n}, w)  c{n} = Add(b{n}, k)  t{n} = Reshape(c{n}, shape)",
    "a{n}, b{n} = Split<axis=2>({v}, halves)  t{n} = Concat<axis=2>(a{n}, b{n})",
    "a{n} = Concat<axis=1>({v}, {u})  b{n} = Concat<axis=1>(a{n}, {v})  t{n} = Slice(b{n}, i0, rows, i1)",
    "a{n} = Slice({v}, i0, far, i2)  b{n} = Slice(a{n}, i0, rows, i1)  t{n} = Slice(b{n}, i0, far, i0)",
    "t{n} = If (flag) <then_branch = th{n} () => (float[N,3,4] p{n}) {{ x{n} = Exp({v})  p{n} = Neg(x{n}) }}, else_branch = el{n} () => (float[N,3,4] q{n}) {{ y{n} = Neg({v})  q{n} = Abs(y{n}) }}>",
    "t{n} = If (yes) <then_branch = th{n} () => (float[N,3,4] p{n}) {{ x{n} = Abs({v})  p{n} = Mul(x{n}, k) }}, else_branch = el{n} () => (float[N,3,4] q{n}) {{ q{n} = Identity({v}) }}>",
    "a{n} = BatchNormalization({v}, vec, vec, vec, vec)  b{n} = Conv<pads=[1,1]>(a{n}, cw)  t{n} = Relu(b{n})",
    "a{n} = Mul({v}, col)  b{n} = Add(a{n}, col)  t{n} = Conv(b{n}, cv, vec)",
    "q{n} = Mul({v}, {v})  m{n} = ReduceMean(q{n}, last)  e{n} = Add(m{n}, half)  r{n} = Sqrt(e{n})  f{n} = Reciprocal(r{n})  d{n} = Mul({v}, f{n})  t{n} = Mul(d{n}, k)",
    "m{n} = ReduceMean({v}, last)  d{n} = Sub({v}, m{n})  q{n} = Mul(d{n}, d{n})  w{n} = ReduceMean(q{n}, last)  e{n} = Add(w{n}, half)  r{n} = Sqrt(e{n})  t{n} = Div(d{n}, r{n})",
    "a{n} = Unsqueeze({v}, i0)  b{n} = Transpose<perm=[0,1,3,2]>(a{n})  s{n} = MatMul(a{n}, b{n})  c{n} = Mul(s{n}, half)  p{n} = Softmax(c{n})  o{n} = MatMul(p{n}, a{n})  t{n} = Squeeze(o{n}, i0)",
    "a{n} = MatMul({v}, w)  t{n} = Mul(a{n}, k)",
    "a{n}, b{n} = Split<axis=2>({v}, halves)  c{n} = Concat<axis=2>(b{n}, a{n})  d{n}, e{n} = Split<axis=2>(c{n}, back)  t{n} = Concat<axis=2>(e{n}, d{n})",
    "t{n}, r{n} = Loop (trips, yes, {v}, {u}) <body = lo{n} (int64 it{n}, bool on{n}, float[N,3,4] p{n}, float[N,3,4] q{n}) => (bool go{n}, float[N,3,4] b{n}, float[N,3,4] h{n}) {{ go{n} = Identity(on{n})  b{n} = Tanh(p{n})  h{n} = Neg(q{n}) }}>",
    "t{n}, r{n} = Loop (trips, yes, {v}, {u}) <body = lo{n} (int64 it{n}, bool on{n}, float[N,3,4] p{n}, float[N,3,4] q{n}) => (bool go{n}, float[N,3,4] b{n}, float[N,3,4] h{n}) {{ go{n} = Identity(on{n})  b{n} = Sub(q{n}, p{n})  h{n} = Identity(q{n}) }}>",
    "a{n} = Reshape({v}, flat)  b{n} = Transpose<perm=[0,2,1]>({v})  s{n} = Shape({v})  x{n} = Shape<start=0, end=1>({u})  c{n} = Concat<axis=0>(x{n}, minus, size)  t{n} = Reshape(a{n}, c{n})",
    "a{n} = Conv<pads=[1,1]>({v}, cw, vec)  b{n} = Mul(a{n}, col)  t{n} = Add(b{n}, col)",
]  # fmt: skip
INPUTS = """float[N,3,4] x, float[4] k, float[4,4] w, float[3,3,3] cw, float[3,3,1] cv, float[3] vec,
float[3,1] col, float lo, float hi, float zero, float one, float half, float three, float six,
float root, int64[1] i0, int64[1] i1, int64[1] i2, int64[1] far, int64[1] rows, int64[1] last,
int64[1] minus, int64[1] size, int64[2] flat, int64[3] shape, int64[2] halves, int64[2] back, int64 trips, bool yes, bool flag"""


def _constants() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(11)
    numbers = {"lo": -0.5, "hi": 1.5, "zero": 0, "one": 1, "half": 0.5, "three": 3, "six": 6,
               "root": np.sqrt(2)}  # fmt: skip
    vectors = {"i0": [0], "i1": [1], "i2": [2], "far": [2**63 - 1], "rows": [3], "last": [-1],
               "minus": [-1], "size": [4], "flat": [-1, 4], "shape": [-1, 3, 4],
               "halves": [1, 3], "back": [3, 1]}  # fmt: skip
    sizes = {"k": (4,), "w": (4, 4), "cw": (3, 3, 3), "cv": (3, 3, 1), "vec": (3,), "col": (3, 1)}
    drawn = {n: np.float32(np.abs(generator.normal(size=s)) * 0.5 + 0.2) for n, s in sizes.items()}
    return (
        drawn
        | {n: np.array(v, np.float32) for n, v in numbers.items()}
        | {n: np.array(v, np.int64) for n, v in vectors.items()}
        | {"yes": np.array(True), "trips": np.array(2)}
    )


CONSTANTS = _constants()


def _text(generator: np.random.Generator) -> str:
    values, lines = ["x"], []
    for number in range(int(generator.integers(1, 9))):
        blocks = generator.random() < 0.6
        choice = str(generator.choice(BLOCKS if blocks else SAME))
        v, u = str(generator.choice(values[-3:])), str(generator.choice(values))
        line = choice.format(v=v, u=u, n=number)
        lines.append(line if blocks else f"t{number} = {line}")
        values.append(f"t{number}")
    middle = str(generator.choice(values[1:]))  # a value in the middle that is an output too
    extra = f"z = Identity({middle})" if generator.random() < 0.5 else f"z = Exp({middle})"
    body = "\n".join(lines)
    return f"t ({INPUTS}) => (float[N,3,4] y, float[N,3,4] z) {{ {body}\n{extra}\ny = Sin({values[-1]}) }}"


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_graphs_compute_the_same(make, group) -> None:
    generator = np.random.default_rng(group)
    for _ in range(GRAPHS // GROUPS):
        text = _text(generator)
        model = make(text, **CONSTANTS)
        model.opset_imports[""] = 23 if group % 2 else 20
        optimized = optimize(model)
        undone = [r for p in optimized.records for r in p.refusals if "undone" in r.reason]
        assert not undone, text
        verify(optimized.model)
        assert facts(optimized.model).nodes <= facts(model).nodes, text
        for size in (1, 3):
            x = generator.normal(size=(size, 3, 4)).astype(np.float32) + np.float32(0.25)
            feeds = {"x": x, "flag": np.array(bool(size == 1))}
            wanted, got = Session(model).run(feeds), Session(optimized.model).run(feeds)
            assert worst(compare_outputs(wanted, got)).max_rel <= TOLERANCE, text
