"""Weights of few values: the best table, gradients, what is stored, what stays as it is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant.cluster.config import ClusterConfig
from quant.cluster.palettes import cluster, emit, refit
from quant.kmeans import fit_table

TEXT = """g (float[N,8] x, float[8,64] w1, float[64] b1, float[64,64] w2, float[64,3] w3) => (float[N,3] y)
    { a = Gemm(x, w1, b1)  r = Relu(a)  s = MatMul(r, w2)  t = Relu(s)  y = MatMul(t, w3) }"""


def squared_error(x: np.ndarray, table: np.ndarray) -> float:
    return float(((x[:, None] - table[None].astype(np.float64)) ** 2).min(1).sum())


@pytest.fixture
def model(make):
    r = np.random.default_rng(6)
    shapes = {"w1": (8, 64), "b1": (64,), "w2": (64, 64), "w3": (64, 3)}
    return make(TEXT, **{n: (0.3 * r.normal(size=s)).astype(np.float32) for n, s in shapes.items()})


def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(7).normal(size=(16, 8)).astype(np.float32)}


@pytest.mark.parametrize(("size", "count"), [(7, 3), (9, 2), (12, 4), (10, 9), (11, 5)])
def test_the_table_is_the_best_there_is(size, count) -> None:
    """Against every way to cut the sorted numbers."""
    r = np.random.default_rng(size)
    for _ in range(10):
        x = np.sort(r.normal(size=size) * r.choice([1.0, 5.0], size)).astype(np.float32)
        whole = x.astype(np.float64)
        parts = (np.split(whole, cut) for cut in combinations(range(1, size), count - 1))
        best = min(sum(((p - p.mean()) ** 2).sum() for p in each) for each in parts)
        assert squared_error(whole, fit_table(x, count)) == pytest.approx(best, rel=1e-5)


def test_tables_of_many_and_of_few_numbers() -> None:
    r = np.random.default_rng(1)
    large = r.normal(size=200_000)
    error = squared_error(large, fit_table(large, 16)) / large.size
    # 0.00954: Max 1960, "Quantizing for minimum distortion", table I, 16 levels.
    assert error == pytest.approx(0.00954, rel=0.02)
    np.testing.assert_array_equal(fit_table(np.float32([2, 1, 2, 1]), 4), np.float32([1, 2, 2, 2]))


@pytest.mark.parametrize("count", [2, 5, 16, 256])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_the_file_computes_what_the_clustered_graph_does(model, run_ort, count, per) -> None:
    if (per, count) == ("channel", 256):
        with pytest.raises(UsageError, match="would grow from"):
            cluster(model, ClusterConfig(clusters=count, per=per))
        return
    found = cluster(model, ClusterConfig(clusters=count, per=per))
    result = emit(found.model)
    wanted = Session(found.model).run(feeds())["y"]
    np.testing.assert_array_equal(Session(result).run(feeds())["y"], wanted)
    np.testing.assert_allclose(run_ort(result, feeds())[0], wanted, rtol=1e-5, atol=1e-6)
    (name,) = (o for o in Session(result)._graph.initializers if o.startswith("w2_table"))
    table = result.graph.initializers[name].const_value.numpy()
    assert table.size == count * (64 if per == "channel" else 1)
    before, after = (len(ir.to_proto(m).SerializeToString()) for m in (model, result))
    assert after < before


def test_what_each_weight_becomes(model) -> None:
    """The columns of a MatMul are its channels: each has values of its own, the nearest ones."""
    found = cluster(model, ClusterConfig(clusters=4, per="channel"))
    w = model.graph.initializers["w2"].const_value.numpy()
    node = next(n for n in found.model.graph if n.inputs[0].name == "w2")
    seen = Session(found.model).run(feeds(), [node.outputs[0].name])[node.outputs[0].name]
    for column in (0, 5, 63):
        assert len(np.unique(seen[:, column])) == 4
        table = fit_table(w[:, column], 4)
        nearest = table[np.abs(w[:, column, None] - table).argmin(1)]
        np.testing.assert_array_equal(seen[:, column], nearest)


def test_small_weights_and_excluded_ones_stay(model) -> None:
    found = cluster(model, ClusterConfig(exclude=("n2",)))
    assert found.weights == ["w1"]
    reasons = {r.node: r.reason for r in found.refusals}
    assert reasons["n2"] == "excluded by the user"
    assert "its weight w3 would grow from 768 to" in reasons["n4"]
    result = emit(found.model)
    np.testing.assert_array_equal(
        result.graph.initializers["w2"].const_value.numpy(),
        model.graph.initializers["w2"].const_value.numpy(),
    )
    with pytest.raises(UsageError, match="no such node"):
        cluster(model, ClusterConfig(exclude=("none",)))


def test_a_shared_weight_is_stored_once(make) -> None:
    w = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    model = make(
        "g (float[N,64] x, float[64,64] w) => (float[N,64] y) { a = MatMul(x, w)  y = MatMul(a, w) }",
        w=w,
    )
    result = emit(cluster(model, ClusterConfig(clusters=4)).model)
    assert len([n for n in result.graph if n.op_type == "Gather"]) == 1
    excluded = ClusterConfig(clusters=4, exclude=("n0",))
    with pytest.raises(UsageError, match="excluded by the user"):
        cluster(model, excluded)


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_gradients_and_the_mean_of_the_members(model, per) -> None:
    """Straight through to the weights; a step later every value is the mean of its members."""
    torch = pytest.importorskip("torch")
    from quant.train.module import Trainable

    module = Trainable(cluster(model, ClusterConfig(clusters=4, per=per)).model)
    np.testing.assert_array_equal(
        module.values(feeds())["y"].argmax(1), Session(module.model).run(feeds())["y"].argmax(1)
    )
    module.run(feeds())["y"].square().sum().backward()
    weight, table = module.parameters["w2"], module.parameters["w2_values"]
    assert weight.grad.abs().sum() > 0
    assert table.grad is None
    old = table.detach().clone().reshape(-1, 4)
    with torch.no_grad():
        weight.add_(0.01)
    refit(module)
    rows = weight.detach().reshape(1, -1) if per == "tensor" else weight.detach().T
    for own, before, after in zip(rows, old, table.detach().reshape(-1, 4), strict=True):
        nearest = (own[:, None] - before[None]).abs().argmin(1)
        means = [float(own[nearest == code].mean()) for code in range(4)]
        np.testing.assert_allclose(after.numpy(), means, atol=1e-6)
