"""Factors of least error, layers cut in two, ranks within a budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from passes.facts import facts
from quant.factorize.choose import Layer, Option, above, within
from quant.factorize.config import FactorizeConfig
from quant.factorize.factors import as_matrix, as_rows, factors, lost, moments_of
from quant.factorize.layers import cuts, layers_of
from quant.factorize.lowrank import factorize
from quant.factorize.split import split

CONFIG = FactorizeConfig(multiple=1)
CONV = """g (float[N,6,9,11] x, float[8,6,3,5] w, float[8] b) => (float[N,8,5,6] y)
    { y = Conv<strides=[2,2], pads=[1,2,1,2]>(x, w, b) }"""


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def low(seed: int, rows: int, columns: int, rank: int) -> np.ndarray:
    return normal(seed, rows, rank) @ normal(seed + 1, rank, columns)


def test_factors_of_the_identity_are_a_singular_value_decomposition() -> None:
    matrix = normal(1, 9, 6).astype(np.float64)
    found = factors(matrix, None)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    for rank in (1, 3, 6):
        np.testing.assert_allclose(found.product(rank), (u * s)[:, :rank] @ v[:rank], atol=1e-10)
        left = float((s[rank:] ** 2).sum() / (s**2).sum())
        assert found.lost[rank] == pytest.approx(left, abs=1e-10)
        assert lost((matrix - found.product(rank)).T, matrix.T, None) == pytest.approx(
            left, abs=1e-10
        )
    np.testing.assert_allclose(
        np.linalg.norm(found.first, axis=0), np.linalg.norm(found.second, axis=1), rtol=1e-6
    )


def test_factors_fit_the_data() -> None:
    """The least error of the outputs there is: that of the singular values of X M."""
    x, matrix = normal(2, 500, 9) * np.geomspace(0.1, 9, 9), normal(3, 9, 6).astype(np.float64)
    moments = x.T @ x / len(x)
    _, s, _ = np.linalg.svd(x @ matrix, full_matrices=False)
    for rank in (1, 2, 4):
        error = matrix - factors(matrix, moments).product(rank)
        best = float((s[rank:] ** 2).sum() / (s**2).sum())
        assert factors(matrix, moments).lost[rank] == pytest.approx(best, rel=1e-6)
        assert lost(error.T, matrix.T, moments) == pytest.approx(best, rel=1e-6)
        plain = matrix - factors(matrix, None).product(rank)
        assert lost(plain.T, matrix.T, moments) > best


@pytest.mark.parametrize("way", ["channel", "spatial"])
def test_shapes_there_and_back(way) -> None:
    rows = normal(4, 8, 6 * 15)
    matrix = as_matrix(rows, (3, 5), way)
    assert matrix.shape == {"channel": (90, 8), "spatial": (18, 40)}[way]
    np.testing.assert_array_equal(as_rows(matrix, (3, 5), way, 8), rows)
    assert moments_of(np.eye(90), (3, 5), way) == pytest.approx(np.eye(len(matrix)))


def forms(model: ir.Model, feeds: dict[str, np.ndarray]):
    found, refusals = cuts(model, [feeds], CONFIG)
    return found, layers_of(model, found, 1), refusals


@pytest.mark.parametrize("way", ["channel", "spatial"])
def test_a_convolution_of_full_rank_stays_the_same(make, run_ort, way) -> None:
    """Strides, paddings and taps that differ along the axes."""
    feeds = {"x": normal(5, 2, 6, 9, 11) + 1}
    model = make(CONV, w=normal(6, 8, 6, 3, 5), b=normal(7, 8))
    found, _, _ = forms(model, feeds)
    rank = {"channel": 8, "spatial": 18}[way]
    result = split(model, [(found[0], Option(way, rank, 0, 0, 0))])
    wanted = run_ort(model, feeds)[0]
    np.testing.assert_allclose(run_ort(result, feeds)[0], wanted, rtol=1e-4, atol=1e-4)
    assert [n.op_type for n in result.graph] == ["Conv", "Conv"]
    assert [n.name for n in result.graph] == ["n0_low", "n0"]
    assert result.graph[0].inputs[1].name == "w_low"


@pytest.mark.parametrize("way", ["channel", "spatial"])
def test_what_an_option_says_is_what_it_is(make, way) -> None:
    model = make(CONV, w=normal(6, 8, 6, 3, 5), b=normal(7, 8))
    found, (layer,), _ = forms(model, {"x": normal(5, 2, 6, 9, 11)})
    option = next(o for o in layer.options if o.way == way and o.rank == 3)
    result = facts(split(model, [(found[0], option)]))
    assert result.parameters == option.parameters + 8
    assert result.macs == option.macs
    first, *others = sorted((o for o in layer.options if o.way == way), key=lambda o: o.rank)
    assert all(a.lost > b.lost for a, b in zip([first, *others], others, strict=False))


def test_the_bias_takes_the_mean_error(make, run_ort) -> None:
    model = make(
        "g (float[N,12] x, float[12,10] w) => (float[N,10] y) { y = Gemm(x, w) }",
        w=low(8, 12, 10, 10),
    )
    feeds = {"x": normal(9, 120, 12) + 3}
    found, (layer,), _ = forms(model, feeds)
    option = next(o for o in layer.options if o.rank == 2)
    got = run_ort(split(model, [(found[0], option)]), feeds)[0]
    wanted = run_ort(model, feeds)[0]
    error = got - wanted
    assert np.abs(error.mean(0)).max() < 1e-4
    assert np.mean(error**2) / wanted.var(0).mean() == pytest.approx(option.lost, rel=0.1)


TEXT = """g (float[N,16] x, float[32,16] w1, float[32] b1, float[32,32] w2, float[32,4] w3) => (float[N,4] y)
    { a = Gemm<transB=1>(x, w1, b1)  r = Relu(a)  s = MatMul(r, w2)  t = Relu(s)  y = MatMul(t, w3) }"""


@pytest.fixture
def model(make):
    """Its second layer has rank 6, the others are full."""
    return make(
        TEXT, w1=normal(1, 32, 16) / 4, b1=normal(2, 32), w2=low(3, 32, 32, 6) / 14,
        w3=normal(4, 32, 4) / 6,
    )  # fmt: skip


def test_the_layer_goes_that_costs_nothing(model, run_ort) -> None:
    feeds = {"x": normal(5, 256, 16)}
    result = factorize(model, [feeds], feeds, ["y"], CONFIG, "parameters", 0.7)
    assert {n: o.rank for n, o in result.chosen.items() if o.way} == {"n2": 6}
    np.testing.assert_allclose(
        run_ort(result.model, feeds)[0], run_ort(model, feeds)[0], rtol=1e-3, atol=1e-3
    )
    assert facts(result.model).parameters <= 0.7 * facts(model).parameters
    assert {r.node: r.reason for r in result.refusals}["n0"] == "cutting others costs less"
    energy = factorize(model, [feeds], feeds, ["y"], replace(CONFIG, energy=0.99), "", 0.0)
    assert energy.chosen["n2"].rank <= 6
    assert all(o.lost <= 0.01 for o in energy.chosen.values())
    macs = factorize(model, [feeds], feeds, ["y"], CONFIG, "macs", 0.4)
    assert facts(macs.model).macs <= 0.4 * facts(model).macs
    assert Session(macs.model).run(feeds)["y"].shape == (256, 4)


def test_what_cannot_be_cut(make, model) -> None:
    feeds = {"x": normal(5, 64, 16)}
    with pytest.raises(UsageError, match="lower --multiple"):
        factorize(model, [feeds], feeds, ["y"], CONFIG, "parameters", 0.02)
    excluded = replace(CONFIG, exclude=("n0", "n2", "n4"))
    with pytest.raises(UsageError, match="no layer of this model can be cut: node n0: excluded"):
        factorize(model, [feeds], feeds, ["y"], replace(excluded, energy=0.5), "", 0.0)
    grouped = make(
        """g (float[N,4,5,5] x, float[4,1,3,3] w, float[4,4,1,1] v, float[4,4,3,3] u)
        => (float[N,4,1,1] y)
        { a = Conv<group=4>(x, w)  b = Conv(a, v)  y = Conv<kernel_shape=[3,3]>(b, u) }""",
        w=normal(1, 4, 1, 3, 3), v=normal(2, 4, 4, 1, 1), u=normal(3, 4, 4, 3, 3),
    )  # fmt: skip
    found, layers, refusals = forms(grouped, {"x": normal(4, 8, 4, 5, 5)})
    assert [(r.node, r.reason) for r in refusals] == [("n0", "it has 4 groups")]
    assert [c.node.name for c in found] == ["n1", "n2"]
    assert max(o.parameters for o in layers[0].options[1:]) < 16


def test_a_bias_that_is_one_number_for_all(make, run_ort) -> None:
    model = make(
        "g (float[N,12] x, float[12,10] w, float[1] b) => (float[N,10] y) { y = Gemm(x, w, b) }",
        w=low(8, 12, 10, 3), b=np.float32([2]),
    )  # fmt: skip
    feeds = {"x": normal(9, 100, 12) + 3}
    result = factorize(model, [feeds], feeds, ["y"], CONFIG, "parameters", 0.7)
    wanted = run_ort(model, feeds)[0]
    np.testing.assert_allclose(run_ort(result.model, feeds)[0], wanted, rtol=1e-3, atol=1e-3)


def test_a_budget_is_spent_where_it_gains_most() -> None:
    def layer(name: str, weight: float) -> Layer:
        cut = [Option("channel", r, 10 * r, 10 * r, 1 - r / 10) for r in range(1, 10)]
        return Layer(name, [Option(None, 0, 100, 100, 0.0), *cut], weight)

    important, other = layer("a", 10.0), layer("b", 1.0)
    first, second = within([important, other], "parameters", 50, 200)
    assert (first.way, second.rank) == (None, 5)
    assert above([important], 0.5)[0].rank == 5
