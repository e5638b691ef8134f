"""The search over formats: its estimates against measurements, its choices against brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant import quantize_model
from quant.config import QuantizeConfig
from quant.search.choice import Choice, digest
from quant.search.ladder import ladder, weight_bytes
from quant.search.noise import Noise, measure_noise
from quant.search.plan import Limits, Plan, Point, best_of, excess
from quant.search.space import explore, uniform

CONFIG = QuantizeConfig(scheme="auto")


@pytest.fixture
def network(make):
    """Large enough that short weights are worth their unpacking, [N,3,8,8] -> [N,5]."""
    r = np.random.default_rng(4)

    def w(*shape: int) -> np.ndarray:
        return (r.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    text = """net (float[N,3,8,8] x, float[32,3,3,3] w1, float[32] b1, float[32,1,3,3] w2,
        float[64,32,3,3] w3, float[64] b3, float[1024,5] w4, float[5] b4) => (float[N,5] y)
    { a = Conv<pads=[1,1,1,1]>(x, w1, b1)  ar = Relu(a)
      b = Conv<group=32, pads=[1,1,1,1]>(ar, w2)  c = Conv<pads=[1,1,1,1]>(b, w3, b3)
      cr = Relu(c)  e = MaxPool<kernel_shape=[2,2], strides=[2,2]>(cr)
      g = Flatten(e)  y = Gemm(g, w4, b4) }"""
    return make(
        text, w1=w(32, 3, 3, 3), b1=w(32), w2=w(32, 1, 3, 3), w3=w(64, 32, 3, 3), b3=w(64),
        w4=w(1024, 5), b4=w(5),
    )  # fmt: skip


@pytest.fixture
def space(network, batches):
    return explore(network, batches, CONFIG)


class Reference:
    """Measures with the reference runtime; the loss is noise over signal."""

    def __init__(self, space, batches) -> None:
        self.space, self.batches, self.measured = space, batches, 0
        session = Session(space.prepared.source)
        self.wanted = [session.run(b)["y"] for b in batches]

    def noise(self, name, make) -> float:
        return self._noise(make())

    def size(self, assignment) -> int:
        model = self.space.emit(assignment).model
        return len(ir.to_proto(model).SerializeToString())

    def measure(self, assignment) -> Point:
        self.measured += 1
        noise = self._noise(self.space.emit(assignment).model)
        return Point(assignment, self.size(assignment), noise, -10 * float(np.log10(noise)))

    def _noise(self, model) -> float:
        session = Session(model)
        got = [session.run(b)["y"] for b in self.batches]
        error = sum(float(((g - w) ** 2).sum()) for g, w in zip(got, self.wanted, strict=True))
        return error / sum(float((w**2).sum()) for w in self.wanted)


def test_layers_of_a_network(space) -> None:
    assert [(x.name, x.op, x.size, x.channels) for x in space.layers.values()] == [
        ("w1", "Conv", 864, 32), ("w2", "Conv", 288, 32), ("w3", "Conv", 18432, 64),
        ("w4", "Gemm", 5120, 5),
    ]  # fmt: skip
    assert "dynamic" in space.layers["w4"].bits
    assert "dynamic" not in space.layers["w1"].bits


def test_all_in_int8_is_the_int8_scheme(space, network, batches) -> None:
    """The same levels as the scheme by itself, but for scales in two bytes."""
    whole = space.emit(uniform(space, "int8", 8))
    scheme = quantize_model(network, batches, QuantizeConfig(scheme="int8"))
    assert whole.coverage == scheme.coverage
    for batch in batches[:2]:
        a, b = Session(whole.model).run(batch)["y"], Session(scheme.model).run(batch)["y"]
        assert np.abs(a - b).max() < 0.05 * np.abs(b).max()


@pytest.mark.parametrize(
    ("choice", "types"),
    [
        (Choice("int8", 8), {"QuantizeLinear"}),
        (Choice("int8", 5), {"QuantizeLinear", "BitShift"}),
        (Choice("float", 8), set()),
        (Choice("float", 3), {"BitShift"}),
        (Choice("float", 16), set()),
        (Choice("float", 32), set()),
    ],
)
def test_one_layer_of_each_kind(space, batches, run_ort, choice, types) -> None:
    """The other layers keep their float weights; ONNX Runtime runs every mixture."""
    alone = dict.fromkeys(space.layers, Choice("float", 32)) | {"w1": choice}
    model = space.emit(alone).model
    found = {n.op_type for n in model.graph}
    assert found & {"QuantizeLinear", "BitShift"} == types
    wanted = Session(space.prepared.source).run(batches[0])["y"]
    got = run_ort(model, batches[0])[0]
    assert np.abs(got - wanted).max() < 0.3 * np.abs(wanted).max()
    assert np.allclose(got, Session(model).run(batches[0])["y"], atol=1e-4)


def test_estimates_of_noise(space, batches) -> None:
    """Noise that is predicted from single layers is within 3 dB of what a mixture has."""
    judge = Reference(space, batches)
    noise = Noise(space)
    measure_noise(noise, judge.noise)
    mixture = {"w1": Choice("int8", 4), "w2": Choice("int8", 3), "w3": Choice("int8", 8),
               "w4": Choice("int8", 2)}  # fmt: skip
    measured = judge.measure(mixture).drop
    assert 0.5 < noise.total(mixture) / measured < 2


def test_ladder_is_the_hull(space) -> None:
    """No decision of at most the same size has less noise than a step of the ladder."""
    noise = Noise(space)
    names = list(space.layers)
    steps = ladder(uniform(space, "int8", 8), noise)

    def size(decision) -> float:
        return sum(weight_bytes(space.layers[n], c) for n, c in decision.items())

    every = [
        dict(zip(names, (Choice("int8", b) for b in bits), strict=True))
        for bits in product((8, 6, 5, 4, 3, 2), repeat=len(names))
    ]
    for index in range(len(steps)):
        here = steps.at(index)
        smaller = [d for d in every if size(d) <= size(here)]
        assert noise.total(here) <= min(map(noise.total, smaller)) * (1 + 1e-9)


def test_limits_together(space, batches) -> None:
    judge = Reference(space, batches)
    plan = Plan(space, judge, Limits(sqnr_db=15.0))
    best = plan.run()
    assert best is not None
    assert best.sqnr_db >= 15.0
    whole = plan.points[0]
    assert best.bytes < whole.bytes
    tight = Limits(size=(best.bytes + whole.bytes) // 2, sqnr_db=15.0)
    found = Plan(space, judge, tight).run()
    assert found is not None
    assert found.bytes <= tight.size
    assert found.sqnr_db >= best.sqnr_db  # more bytes, less noise


def test_limits_that_contradict(space, batches) -> None:
    """Every way of computing is tried, and the nearest miss is known."""
    plan = Plan(space, Reference(space, batches), Limits(sqnr_db=60.0, size=1000))
    assert plan.run() is None
    computes = {c.compute for p in plan.points for c in p.assignment.values()}
    assert computes == {"int8", "float", "dynamic"}
    assert all(excess(p, plan.limits) for p in plan.points)


def test_best_of_points() -> None:
    points = [
        Point({}, b, d, 30.0, ms) for b, d, ms in ((10, 0.03, 1), (20, 0.01, 2), (30, 0.0, 3))
    ]
    assert best_of(points, Limits(drop=0.01)) is points[1]  # the smallest that is exact enough
    assert best_of(points, Limits(size=25)) is points[1]  # the most exact that fits
    assert best_of(points, Limits(latency_ms=3.0)) is points[2]
    assert best_of(points, Limits(drop=0.01, latency_ms=1.5)) is None
    unknown = [Point({}, 10, None, 30.0)]
    assert best_of(unknown, Limits(drop=0.5)) is None  # what was not measured keeps no limit


def test_a_decision_has_one_name() -> None:
    a, b = Choice("int8", 8), Choice("float", 4)
    assert digest({"x": a, "y": b}) == digest({"y": b, "x": a}) != digest({"x": b, "y": a})


def test_excluded_layers_are_left_alone(network, batches) -> None:
    space = explore(network, batches, QuantizeConfig(scheme="auto", exclude=("n2",)))
    assert "w2" not in space.layers
    result = space.emit(uniform(space, "int8", 8))
    reasons = {r.node: r.reason for r in result.refusals}
    assert reasons["n2"] == "excluded by the user"


def test_auto_needs_an_engine(network, batches) -> None:
    with pytest.raises(UsageError, match=r"infer_tool\.quantize"):
        quantize_model(network, batches, CONFIG)
