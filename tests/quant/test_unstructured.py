"""Which elements go, by each method, against counts and formulas worked out here."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime.errors import ModelError, UsageError
from passes.graph import constant
from passes.lift_constants import LiftConstants
from quant.gptq import DAMPING
from quant.prune.pattern import Pattern, parse_pattern
from quant.prune.shares import kept_counts, largest_of_rows
from quant.prune.sparsegpt import prune_rows
from quant.prune.unstructured import sparsify

METHODS = ("magnitude", "wanda", "sparsegpt")


@pytest.fixture
def layers(make) -> ir.Model:
    """Two convolutions (one of two groups) and a product, [N,8,6,6] -> [N,12]."""
    r = np.random.default_rng(3)
    shapes = {"w1": (16, 8, 3, 3), "b1": (16,), "w2": (24, 8, 1, 1), "b2": (24,), "w3": (24, 12)}
    return make(
        """g (float[N,8,6,6] x, float[16,8,3,3] w1, float[16] b1, float[24,8,1,1] w2, float[24] b2,
        float[24,12] w3) => (float[N,12] y)
        { a = Conv<pads=[1,1,1,1]>(x, w1, b1)  ar = Relu(a)  b = Conv<group=2>(ar, w2, b2)
          br = Relu(b)  p = GlobalAveragePool(br)  f = Flatten(p)  y = MatMul(f, w3) }""",
        **{n: r.normal(size=s).astype(np.float32) for n, s in shapes.items()},
    )


@pytest.fixture
def inputs() -> list[dict[str, np.ndarray]]:
    """Correlated channels: what is removed can be made up for by others."""
    r = np.random.default_rng(4)
    mix = r.normal(size=(8, 8)) @ np.diag(2.0 ** -np.arange(8))
    return [
        {"x": (np.einsum("dc,nchw->ndhw", mix, r.normal(size=(16, 8, 6, 6))) + 1).astype(np.float32)}
        for _ in range(6)
    ]  # fmt: skip


def arrays(model: ir.Model) -> dict[str, np.ndarray]:
    return {n: constant(v) for n, v in model.graph.initializers.items()}


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_share_is_met_exactly(layers, inputs, method, uniform) -> None:
    done = sparsify(layers, inputs, budget=0.7, method=method, uniform=uniform)
    found = arrays(done.model)
    kept = [np.count_nonzero(found[n]) for n in ("w1", "w2", "w3")]
    sizes = [found[n].size for n in ("w1", "w2", "w3")]
    assert set(done.masks) == {"w1", "w2", "w3"}
    if uniform:
        assert kept == [int(0.3 * n) for n in sizes]
    else:
        assert sum(kept) == int(0.3 * sum(sizes))
    if method != "sparsegpt":  # what stays is what it was
        for name, mask in done.masks.items():
            np.testing.assert_array_equal(found[name], arrays(layers)[name] * mask)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("kept", "group"), [(2, 4), (4, 8), (1, 4)])
def test_every_group_of_input_channels_has_the_pattern(layers, inputs, method, kept, group) -> None:
    found = arrays(sparsify(layers, inputs, budget=Pattern(kept, group), method=method).model)
    for name, axis in (("w1", 1), ("w2", 1), ("w3", 0)):
        last = np.moveaxis(found[name], axis, -1)
        counts = np.count_nonzero(last.reshape(*last.shape[:-1], -1, group), axis=-1)
        assert (counts == kept).all()


def test_the_global_budget_does_not_see_scales(layers) -> None:
    """A layer of small numbers loses no more than it would as a layer of large ones."""
    found = [arrays(layers)[n] for n in ("w1", "w2", "w3")]
    counts = kept_counts(found, 0.8, uniform=False)
    assert kept_counts([found[0] * 1e-4, found[1], found[2] * 50], 0.8, uniform=False) == counts
    # By hand: squares 16, 4, 1 score 1, 4/20 and then 1/21; squares 9, 9 score 1 and 1/2.
    small = [np.array([4.0, 2.0, 1.0]), np.array([3.0, -3.0])]
    assert kept_counts(small, 0.39, uniform=False) == [1, 2]
    assert kept_counts(small, 0.19, uniform=False) == [2, 2]


def test_rows_keep_as_many_as_each_other() -> None:
    scores = np.array([[5.0, 4.0, 3.0], [0.3, 0.2, 0.1]])
    np.testing.assert_array_equal(
        largest_of_rows(scores, 3), [[True, True, False], [True, False, False]]
    )


def test_wanda_looks_at_the_inputs(make) -> None:
    """Large weights of an input that is nearly nothing go first."""
    model = make(
        "g (float[N,8] x, float[8,16] w) => (float[N,16] y) { y = MatMul(x, w) }",
        w=np.concatenate([np.full((4, 16), 2.0), np.ones((4, 16))]).astype(np.float32),
    )
    x = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    x[:, :4] *= 0.01
    masks = {
        method: sparsify(model, [{"x": x}], budget=0.5, method=method).masks["w"]
        for method in ("magnitude", "wanda")
    }
    assert masks["magnitude"][:4].all()
    assert masks["wanda"][4:].all()


def test_what_stays_makes_up_for_what_goes() -> None:
    """The first column goes; the others become the least squares solution without it."""
    r = np.random.default_rng(1)
    x = r.normal(size=(500, 4)) @ r.normal(size=(4, 4))
    second = x.T @ x / len(x)
    rows = np.array([[[0.01, 1.0, -2.0, 1.5], [-0.02, 3.0, 1.0, 1.0]]])
    damped = second + DAMPING * np.trace(second) / 4 * np.eye(4)
    expected = np.linalg.solve(damped[1:, 1:], damped[1:] @ rows[0].T).T
    for kept in (Pattern(3, 4), 6):
        found = prune_rows(rows, second[None], kept)
        np.testing.assert_array_equal(found[0, :, 0], 0)
        np.testing.assert_allclose(found[0, :, 1:], expected, rtol=1e-9)


@pytest.mark.parametrize("budget", [0.5, Pattern(2, 4)])
def test_the_better_method_loses_less(layers, inputs, run_ort, budget) -> None:
    wanted = [run_ort(layers, x)[0] for x in inputs]
    lost = {}
    for method in METHODS:
        model = sparsify(layers, inputs, budget=budget, method=method).model
        got = [run_ort(model, x)[0] for x in inputs]
        lost[method] = sum(float(((w - g) ** 2).sum()) for w, g in zip(wanted, got, strict=True))
    assert lost["sparsegpt"] < 0.6 * lost["wanda"] < 0.6 * lost["magnitude"]


def test_biases_keep_the_mean(make, run_ort) -> None:
    r = np.random.default_rng(2)
    model = make(
        """g (float[N,8,4,4] x, float[16,8,3,3] w, float[16] b) => (float[N,16,4,4] y)
        { y = Conv<pads=[1,1,1,1]>(x, w, b) }""",
        w=r.normal(size=(16, 8, 3, 3)).astype(np.float32), b=np.zeros(16, np.float32),
    )  # fmt: skip
    x = {"x": (r.normal(size=(8, 8, 4, 4)) + 2).astype(np.float32)}
    before, bare, kept = (
        run_ort(m, x)[0].mean(axis=(0, 2, 3))
        for m in (
            model,
            sparsify(model, [], budget=0.8, method="magnitude").model,
            sparsify(model, [x], budget=0.8, method="magnitude").model,
        )
    )
    assert np.abs(bare - before).max() > 1
    np.testing.assert_allclose(kept, before, atol=1e-4)


def test_what_does_not_take_part(make) -> None:
    """A table, one that a product reads too, an odd number of channels, and recurrent inputs."""
    r = np.random.default_rng(2)
    shapes = {"table": (40, 16), "w": (16, 48), "odd": (7, 16), "g": (1, 12, 16), "h": (1, 12, 4)}
    model = make(
        """m (int64[N,3] i, float[N,7] o, float[40,16] table, float[16,48] w, float[7,16] odd,
        float[1,12,16] g, float[1,12,4] h) => (float[N,3,48] y, float[N,3,40] z, float[N,16] v, float[N,1,3,4] s)
        { e = Gather(table, i)  y = MatMul(e, w)  t = Transpose<perm=[1,0]>(table)  z = MatMul(e, t)
          v = MatMul(o, odd)  s = GRU<hidden_size=4>(e, g, h) }""",
        **{n: r.normal(size=s).astype(np.float32) for n, s in shapes.items()},
    )  # fmt: skip
    feeds = {"i": np.zeros((2, 3), np.int64), "o": np.ones((2, 7), np.float32)}
    done = sparsify(model, [feeds], budget=Pattern(2, 4), method="wanda")
    assert set(done.masks) == {"w", "g"}
    reasons = {r.node: r.reason for r in done.refusals}
    assert "table of n0" in reasons["n0"]
    assert "7 input channels are not divisible by 4" in reasons["n4"]
    assert "pruned by magnitude: wanda needs" in reasons["n5"]


def test_a_weight_that_is_read_both_ways(make) -> None:
    """No group of one product is a group of the other; single elements may go."""
    model = make(
        """g (float[N,16] x, float[16,16] w) => (float[N,16] y)
        { a = MatMul(x, w)  y = Gemm<transB=1>(a, w) }""",
        w=np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32),
    )
    assert set(sparsify(model, [], budget=0.5, method="magnitude").masks) == {"w"}
    with pytest.raises(ModelError, match="w is read along another axis by n0"):
        sparsify(model, [], budget=Pattern(2, 4), method="magnitude")


def test_weights_of_branches_stay(make) -> None:
    """They are used or not; what the main graph holds may lose elements."""
    text = """g (float[N,16] x, bool c, float[16,16] w) => (float[N,16] y)
    { z = MatMul(x, w)
      y = If (c) <then_branch = t () => (float[N,16] u)
            { k = Constant<value = float[16,8] {VALUES}>()  j = MatMul(z, k)  u = Concat<axis=-1>(j, j) },
          else_branch = e () => (float[N,16] v) { v = Identity(z) }> }"""
    values = ",".join(["1.0"] * 128)
    w = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    model = make(text.replace("VALUES", values), w=w)
    LiftConstants().apply(model)
    done = sparsify(model, [], budget=0.5, method="magnitude")
    assert set(done.masks) == {"w"}
    assert any("in a branch or a loop" in r.reason for r in done.refusals)


@pytest.mark.parametrize("text", ["2", "4:4", "0:4", "5:4", "2:64", "a:b", "-1:4", "2:4:8"])
def test_patterns_that_are_none(text) -> None:
    with pytest.raises(UsageError, match=f"--pattern {text}"):
        parse_pattern(text)


def test_nothing_to_prune(make) -> None:
    model = make(
        "g (float[N,7] x, float[7,16] w) => (float[N,16] y) { y = MatMul(x, w) }",
        w=np.ones((7, 16), np.float32),
    )
    with pytest.raises(ModelError, match="no weights that could be pruned: its 7 input channels"):
        sparsify(model, [], budget=Pattern(2, 4), method="magnitude")
    with pytest.raises(UsageError, match="leaves nothing of a weight of 112"):
        sparsify(model, [], budget=0.999, method="magnitude")


def test_movement_learns_its_scores(layers) -> None:
    """The sum of -gradient times weight over the steps, weights that are masked included."""
    torch = pytest.importorskip("torch")
    from quant.prune.movement import Movement
    from quant.train.module import Trainable

    module, movement = Trainable(layers), Movement(["w1", "w3"])
    r = np.random.default_rng(8)
    start = {n: module.parameters[n].detach().numpy().copy() for n in ("w1", "w3")}

    def train(project: Any, gradients: list[np.ndarray]) -> None:
        weight = module.parameters["w3"]
        for gradient in gradients:
            weight.grad = torch.tensor(gradient)
            with torch.no_grad():
                weight.sub_(0.1 * weight.grad)
            project()

    first, second = (
        [r.normal(size=(24, 12)).astype(np.float32) for _ in range(2)] for _ in range(2)
    )
    train(movement.watch(module, {}), first)
    model = movement.finish(module, {})
    w = start["w3"]
    expected = np.zeros_like(w)
    for gradient in first:
        w = w - np.float32(0.1) * gradient
        expected -= gradient * w
    np.testing.assert_allclose(movement.scores["w3"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(movement.scores["w1"], 0)
    done = sparsify(model, [], budget=0.5, method="movement", scores=movement.scores)
    mask = done.masks["w3"]
    assert movement.scores["w3"][mask].min() >= movement.scores["w3"][~mask].max()

    module = Trainable(done.model)
    train(movement.watch(module, done.masks), second)
    assert not module.parameters["w3"].detach().numpy()[~mask].any()
    whole = constant(movement.finish(module, done.masks).graph.initializers["w3"])
    np.testing.assert_array_equal(whole[~mask], w[~mask])  # as it was when it was masked
    assert not np.allclose(whole[mask], w[mask])
    moved = movement.scores["w3"][~mask] - expected[~mask]
    np.testing.assert_allclose(moved, -(sum(second) * w)[~mask], rtol=1e-4, atol=1e-5)
