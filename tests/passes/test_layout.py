"""Transposes around convolutions go, whatever lies between; and what must stay."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from infer_runtime import Session
from passes.compare import compare_outputs, worst
from passes.min_cut import Flow
from passes.pipeline import optimize
from passes.push_transposes import PushTransposes

TURN, BACK = "Transpose<perm=[0,2,3,1]>", "Transpose<perm=[0,3,1,2]>"
SWAP = "Transpose<perm=[0,2,1]>"
R = np.random.default_rng(5)


def _f(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) * 0.5 + 0.3).astype(np.float32)


def _i(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


# The values between the Transposes are [2, 4, 6, 3].
CONSTANTS = {
    "k": _f(3), "slope": _f(1, 1, 3), "image": _f(1, 4, 6, 3), "s": np.float32(0.05),
    "zp": np.int8(3), "scales": np.float32([0.1, 0.05, 0.2]), "zps": np.int8([1, 0, -2]),
    "blocks": np.full((2, 4, 6, 1), 0.1, np.float32), "a12": _i(1, 2), "a2": _i(2), "a3": _i(3),
    "n3": np.int64(3), "n0": np.int64(0), "one": _i(1), "far": _i(2**62), "two": _i(2),
    "begin": _i(0, 1), "end": _i(1, 3), "halves": _i(1, 2), "order": _i(2, 0), "flat": _i(2, -1),
    "pads": _i(0, 1, 0, 0, 0, 0, 2, 0), "few": _i(1, 0, 0, 2), "repeats": _i(1, 2, 1, 1),
    "wide": _i(2, 4, 6, 3), "up": np.float32([1, 2, 2, 1]), "deep": np.float32([1, 2, 1, 2]),
    "sizes": _i(7, 9), "ones": _i(2, 4, 6, 1),
}  # fmt: skip
TYPES = {"float32": "float", "int64": "int64", "int8": "int8"}


@pytest.fixture(scope="module")
def known(make_known):
    """A model with these constants, the shapes of all values inferred."""
    lists = {n: f"[{','.join(map(str, a.shape))}]" if a.ndim else "" for n, a in CONSTANTS.items()}
    inputs = ", ".join(f"{TYPES[str(a.dtype)]}{lists[n]} {n}" for n, a in CONSTANTS.items())
    head = f"t (float[2,3,4,6] x, float[2,3,4,6] w, float[3] v, {inputs}) => (float[] y, float[] z)"
    return lambda body: make_known(f"{head} {{ {body} }}", **CONSTANTS)


@pytest.mark.parametrize(
    "between",
    [
        "b = PRelu(a, slope)", "b = Mul(a, image)", "b = Add(k, a)", "b = Max(a, k, image)",
        "m = Less(k, a)  b = Where(m, a, k)", "b = Softmax(a)", "b = Softmax<axis=1>(a)",
        "b = LpNormalization<axis=3>(a)", "b = ReduceMean(a, a12)", "b = ReduceMax(a, a3)",
        "b = CumSum(a, n3)", "b = Pad(a, pads)", "b = Pad(a, few, , a12)",
        "b = Slice(a, one, far, a2)", "b = Slice(a, begin, end)", "b = Resize(a, , up)",
        'b = Resize<mode="linear", axes=[1,2]>(a, , , sizes)', "b = Tile(a, repeats)",
        "b = Expand(a, wide)", "b = Gather<axis=3>(a, order)", "b, i = TopK<axis=3>(a, two)",
        "r = ReduceMean<keepdims=0>(a, a2)  p = Unsqueeze(r, a2)  b = Mul(a, p)",
        "r = ReduceSum<keepdims=0>(a, a3)  p = Reshape(r, ones)  b = Sub(a, p)",
        "r = Gather<axis=1>(a, n0)  p = Neg(r)  s1 = Unsqueeze(p, one)  b = Mul(a, s1)",
        "p, q = Split<axis=-1>(a, halves)  b = Concat<axis=3>(q, p, image2)",
        "q = QuantizeLinear(a, s, zp)  b = DequantizeLinear(q, s, zp)",
        "q = QuantizeLinear<axis=3>(a, scales, zps)  b = DequantizeLinear<axis=-1>(q, scales, zps)",
    ],
)  # fmt: skip
def test_operators_work_in_either_layout(apply_pass, known, between) -> None:
    body = f"a = {TURN}(x)  image2 = {TURN}(w)  {between}  y = {BACK}(b)  z = Neg(w)"
    ops, _, _ = apply_pass(PushTransposes(), known(body))
    assert "Transpose" not in ops or ("image2" not in between and ops.count("Transpose") == 1)


@pytest.mark.parametrize(
    "after",
    [
        "y = ReduceMean<keepdims=0>(a, a12)", "m = ArgMax<axis=3, keepdims=0>(a)  y = Cast<to=1>(m)",
        "p = ReduceMax(a, a12)  q = Squeeze(p, a12)  y = Exp(q)", "y = Gather<axis=3>(a, n0)",
        "y = ReduceSum<keepdims=0>(a)",
    ],
)  # fmt: skip
def test_axes_that_go_leave_the_others_in_order(apply_pass, known, after) -> None:
    ops, _, _ = apply_pass(PushTransposes(), known(f"a = {TURN}(x)  {after}  z = Neg(w)"))
    assert "Transpose" not in ops


@pytest.mark.parametrize(
    "between",
    [
        "b = LayerNormalization(a, k)",
        "p = Reshape(a, flat)  b = Reshape(p, wide)",
        "b = Add(a, v)",  # [3], and no constant that could be given its axes
        "b = Resize(a, , deep)",  # engines know few modes that resize the second axis
        "q = QuantizeLinear<axis=3, block_size=3>(a, blocks)  b = DequantizeLinear(q, s, zp)",
        "b = Gather<axis=1>(a, table)",
        "p = Slice(a, one, far, n)  b = Tile(p, repeats)",  # an axis that is not known
    ],
)
def test_other_operators_keep_their_layout(known, between) -> None:
    table = "table = CastLike(flat, n)  n = Identity(a2)"
    body = f"a = {TURN}(x)  {table}  {between}  y = {BACK}(b)  z = Neg(w)"
    model = known(body)
    PushTransposes().apply(model)
    assert [n.op_type for n in model.graph].count("Transpose") == 2


@pytest.mark.parametrize(
    ("between", "left"),
    [
        ("b = Reshape(a, three)  d = Relu(b)  e = Reshape(d, four)", 0),
        ("b = Squeeze(a, one)  d = Relu(b)  e = Unsqueeze(d, one)", 0),
        (f"b = Reshape(a, three)  n = {SWAP}(b)  d = Relu(n)  m = {SWAP}(d)  e = Reshape(m, four)", 0),
        ("b = Reshape(a, two)  d = Relu(b)  e = Reshape(d, four)", 2),
        ("b = Reshape(a, other)  d = Relu(b)  e = Reshape(d, four)", 2),
    ],
)  # fmt: skip
def test_reshapes_of_single_axes_turn(apply_pass, make_known, between, left) -> None:
    """A convolution of sequences, written as one of images."""
    text = f"""t (float[2,5,1,7] x, float[5,5,1,1] w, int64[3] three, int64[4] four, int64[2] two,
    int64[3] other, int64[1] one) => (float[2,5,1,7] y)
    {{ c = Conv(x, w)  a = {TURN}(c)  {between}  f = {BACK}(e)  y = Conv(f, w) }}"""
    constants = {
        "w": _f(5, 5, 1, 1), "three": _i(2, 7, 5), "four": _i(2, 1, 7, 5), "two": _i(2, 35),
        "other": _i(7, 2, 5), "one": _i(1),
    }  # fmt: skip
    ops, _, _ = apply_pass(PushTransposes(), make_known(text, **constants))
    assert ops.count("Transpose") == left


def test_only_what_gains_is_turned(apply_pass, known) -> None:
    """Behind the Sigmoid a layer needs the old order; before it two need the new one."""
    body = f"""a = {TURN}(x)  b = Relu(a)  c = {BACK}(b)  d = Neg(b)  e = Sigmoid(d)
    f = LayerNormalization(e, k)  g = Exp(c)  y = Reshape(f, flat)  z = Reshape(g, flat)"""
    ops, _, _ = apply_pass(PushTransposes(), known(body))
    assert ops.count("Transpose") == 1


def test_fewer_transposes_of_much_larger_values_are_refused(known) -> None:
    body = f"""a = ReduceMax(x, a12)  b = {TURN}(x)  c = ReduceMin(b, a12)  d = {TURN}(w)
    e = ReduceMin(d, a12)  f = Add(c, e)  g = Resize(f, , up)  y = Reshape(g, flat)  z = Neg(a)"""
    model = known(body)
    assert PushTransposes().apply(model).changes in (0, 1)


def test_graph_outputs_keep_their_order_and_name(apply_pass, known) -> None:
    """Both Transposes are outputs: one value can take one name."""
    body = f"a = {TURN}(x)  b = Relu(a)  y = {BACK}(b)  z = {BACK}(b)"
    ops, _, model = apply_pass(PushTransposes(), known(body))
    assert [o.name for o in model.graph.outputs] == ["y", "z"]
    assert "Relu" in ops


def test_a_branch_reads_the_old_order(apply_pass, known) -> None:
    body = f"""a = {TURN}(x)  b = Relu(a)  y = {BACK}(b)  total = ReduceSum<keepdims=0>(w)
    c = Greater(total, s)
    z = If (c) <then_branch = p () => (float[2,4,6,3] i) {{ i = Neg(b) }},
                else_branch = q () => (float[2,4,6,3] j) {{ j = Identity(b) }}>"""
    ops, _, _ = apply_pass(PushTransposes(), known(body))
    assert ops.count("Transpose") == 1


def test_minimal_cuts() -> None:
    """Against all cuts of small random graphs."""
    for seed in range(100):
        draw = np.random.default_rng(seed)
        count = int(draw.integers(2, 7))
        edges = [tuple(map(int, draw.integers(0, count, 2))) for _ in range(14)]
        priced = [(a, b, int(draw.integers(0, 6))) for a, b in edges if a != b]
        flow = Flow()
        for edge in priced:
            flow.connect(*edge)

        def price(side: set, priced: list = priced) -> int:
            return sum(p for a, b, p in priced if a not in side and b in side)

        last, inner = count - 1, range(1, count - 1)
        sides = [{last, *c} for size in range(count) for c in combinations(inner, size)]
        assert price(flow.sink_side(0, last)) == min(map(price, sides))


# Random networks as importers of NHWC models write them: every convolution has its own Transposes.
CONV = "p{n} = Transpose<perm=[0,3,1,2]>({v})  c{n} = Conv<pads=[1,1,1,1]>(p{n}, {w}, cb)  t{n} = Transpose<perm=[0,2,3,1]>(c{n})"
POOL = "p{n} = Transpose<perm=[0,3,1,2]>({v})  c{n} = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(p{n})  t{n} = Transpose<perm=[0,2,3,1]>(c{n})"
SCALE = (
    "m{n} = ReduceMean({v}, hw)  "
    + CONV.replace("{v}", "m{n}").replace("t{n}", "s{n}")
    + "  g{n} = Sigmoid(s{n})  t{n} = Mul({v}, g{n})"
)
SHUFFLE = "p{n} = Transpose<perm=[0,3,1,2]>({v})  d{n} = DepthToSpace<blocksize=2>(p{n})  u{n} = SpaceToDepth<blocksize=2>(d{n})  t{n} = Transpose<perm=[0,2,3,1]>(u{n})"
LAYERS = [
    CONV, CONV, POOL, SCALE, SHUFFLE, "t{n} = Relu({v})", "t{n} = Clip({v}, low, high)", "t{n} = Add({v}, {u})",
    "t{n} = Mul({u}, {v})", "t{n} = PRelu({v}, slope)", "t{n} = Softmax({v})", "t{n} = Mul({v}, cb)",
    "a{n}, b{n} = Split<axis=3>({v}, halves)  d{n} = Sigmoid(a{n})  t{n} = Concat<axis=-1>(b{n}, d{n})",
    "a{n} = Concat<axis=3>({v}, {u})  t{n} = Slice(a{n}, two, six, chan)",
    "a{n} = Pad({v}, pads)  t{n} = Slice(a{n}, one, minus, rows)",
    "a{n} = Resize({v}, , up)  p{n} = Transpose<perm=[0,3,1,2]>(a{n})  c{n} = AveragePool<kernel_shape=[2,2], strides=[2,2]>(p{n})  t{n} = Transpose<perm=[0,2,3,1]>(c{n})",
]  # fmt: skip
QUANTISED = [
    "f{n} = QuantizeLinear({v}, s, zp)  t{n} = DequantizeLinear(f{n}, s, zp)",
    "f{n} = QuantizeLinear<axis=3>({v}, scales, zps)  t{n} = DequantizeLinear<axis=3>(f{n}, scales, zps)",
]
NETWORK_CONSTANTS = {
    "w0": _f(4, 4, 3, 3) / 6, "w1": _f(4, 4, 3, 3) / 6, "cb": _f(4), "slope": _f(1, 1, 4),
    "low": np.float32(-1), "high": np.float32(2), "hw": _i(1, 2), "halves": _i(1, 3),
    "two": _i(2), "six": _i(6), "chan": _i(3), "pads": _i(0, 1, 0, 0, 0, 1, 0, 0), "one": _i(1),
    "minus": _i(-1), "rows": _i(1), "up": np.float32([1, 2, 2, 1]), "s": np.float32(0.03),
    "zp": np.int8(-4), "scales": np.float32([0.03, 0.02, 0.04, 0.05]), "zps": np.int8([0, 1, -3, 5]),
}  # fmt: skip


def _network(draw: np.random.Generator, layers: list[str]) -> str:
    values, lines = ["x"], []
    for number in range(int(draw.integers(2, 14))):
        v, u = values[-1 - int(draw.integers(min(2, len(values))))], str(draw.choice(values))
        line = str(draw.choice(layers)).format(v=v, u=u, n=number, w=f"w{number % 2}")
        lines.append(line)
        values.append(f"t{number}")
    body = "\n".join(lines)
    lists = {
        n: f"[{','.join(map(str, a.shape))}]" if a.ndim else ""
        for n, a in NETWORK_CONSTANTS.items()
    }
    inputs = ", ".join(f"{TYPES[str(a.dtype)]}{lists[n]} {n}" for n, a in NETWORK_CONSTANTS.items())
    return f"t (float[N,6,8,4] x, {inputs}) => (float[N,6,8,4] y) {{ {body}\ny = Identity({values[-1]}) }}"


@pytest.mark.parametrize("group", range(8))
def test_networks_in_the_other_layout_keep_two_transposes(make, group) -> None:
    """One after the input and one before the output, however many layers lie between."""
    draw = np.random.default_rng(group)
    for _ in range(12):
        text = _network(draw, LAYERS + QUANTISED * (group % 2 * 4))
        model = make(text, **NETWORK_CONSTANTS)
        optimized = optimize(model)
        undone = [r for p in optimized.records for r in p.refusals if "undone" in r.reason]
        assert not undone, text
        ops = [n.op_type for n in optimized.model.graph]
        assert ops.count("Transpose") <= 2, text
        x = draw.normal(size=(3, 6, 8, 4)).astype(np.float32) + np.float32(0.25)
        wanted, got = Session(model).run({"x": x}), Session(optimized.model).run({"x": x})
        assert worst(compare_outputs(wanted, got)).max_rel <= 1e-5, text
