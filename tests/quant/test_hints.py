"""Losses between tensors, how tensors are paired, and students of fewer blocks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime import Session
from infer_runtime.errors import UsageError
from quant.distill.blocks import blocks_of, drop_blocks, without
from quant.distill.config import DistillConfig
from quant.distill.hints import attention_loss, make_hints, named_pairs, relation_loss
from quant.distill.match import Tensor, matched, tensors_of
from quant.train.config import TrainConfig
from quant.train.task import Task

CONFIG = DistillConfig(match="auto")
# Two stages of a teacher [N,3,8,8] -> 8x8 and 4x4, then a product; `c` and `d` set its widths.
TEXT = """g (float[N,3,8,8] x, float[C,3,3,3] w1, float[C,C,3,3] w2, float[D,C,3,3] w3, float[D,5] w4)
    => (float[N,5] y)
    { a = Conv<pads=[1,1,1,1]>(x, w1)  ar = Relu(a)  b = Conv<pads=[1,1,1,1]>(ar, w2)  s = Add(b, ar)
      sr = Relu(s)  c = Conv<pads=[1,1,1,1], strides=[2,2]>(sr, w3)  cr = Relu(c)
      p = GlobalAveragePool(cr)  f = Flatten(p)  y = MatMul(f, w4) }"""


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def network(make):
    def build(c: int, d: int, seed: int = 0):
        shapes = {"w1": (c, 3, 3, 3), "w2": (c, c, 3, 3), "w3": (d, c, 3, 3), "w4": (d, 5)}
        text = TEXT.replace("C", str(c)).replace("D", str(d)).replace(f"{c}onv", "Conv")
        weights = {n: normal(seed, *s) / s[-1] / c**0.5 for n, s in shapes.items()}
        return make(text, **weights)

    return build


def feeds(count: int = 4) -> dict[str, np.ndarray]:
    return {"x": normal(1, count, 3, 8, 8)}


def test_stages_are_paired_by_their_places(network) -> None:
    mine, others = (tensors_of(m, feeds()) for m in (network(4, 8), network(8, 16)))
    assert list(others) == ["a", "ar", "b", "s", "sr", "c", "cr", "p", "f", "y"]
    pairs = matched(mine, others, {"y"})
    assert [(a.name, b.name) for a, b in pairs] == [("sr", "sr"), ("cr", "cr"), ("f", "f")]
    assert [b.shape[b.axis] for _, b in pairs] == [8, 16, 16]
    with pytest.raises(UsageError, match="no tensors of the two models have the same places"):
        matched({"a": Tensor("a", (4, 2, 9, 9), 1)}, others, {"y"})


def test_named_pairs_and_names_that_are_near(network) -> None:
    mine, others = (tensors_of(m, feeds()) for m in (network(4, 8), network(8, 16)))
    assert [(a.name, b.name) for a, b in named_pairs(["ar=sr"], mine, others)] == [("ar", "sr")]
    with pytest.raises(UsageError, match=r"the optimised teacher has no tensor 'srr'.*near: sr"):
        named_pairs(["ar=srr"], mine, others)
    with pytest.raises(UsageError, match="student has no tensor 'x'"):
        named_pairs(["x=sr"], mine, others)  # an input teaches nothing
    with pytest.raises(UsageError, match="expected STUDENT=TEACHER"):
        named_pairs(["ar"], mine, others)


@pytest.mark.parametrize(
    ("options", "names", "words"),
    [
        ({"feature_weight": 1.0}, [], "add --match auto or --hint"),
        ({"feature_weight": 0.0}, ["sr=sr"], "every weight of them is 0"),
        ({}, ["sr=cr"], "have not the same places"),
        ({"attention_weight": 1.0}, ["f=f"], "no pair of tensors has places"),
    ],
)
def test_weights_that_do_not_fit(network, options, names, words) -> None:
    student = network(4, 8)
    teacher = network(8, 16)
    mine, others = (tensors_of(m, feeds()) for m in (student, teacher))
    pairs = named_pairs(names, mine, others)
    with pytest.raises(UsageError, match=words):
        make_hints(student, teacher, pairs, DistillConfig(**options), feeds())


def test_no_pairs_are_no_hints(network) -> None:
    assert make_hints(network(4, 8), network(8, 16), [], DistillConfig(), feeds()) is None


def by_hand(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The relations of some samples, one after the other."""
    x = x.reshape(len(x), -1).astype(np.float64)
    n = len(x)
    distance = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    cosine = np.zeros((n, n, n))
    for i, j, k in permutations(range(n), 3):
        e, f = x[j] - x[i], x[k] - x[i]
        cosine[i, j, k] = e @ f / np.linalg.norm(e) / np.linalg.norm(f)
    for i, j in permutations(range(n), 2):
        cosine[i, j, j] = 1
    return distance / (distance.sum() / (n * (n - 1))), cosine


def huber(a: np.ndarray) -> float:
    return float(np.mean(np.where(np.abs(a) < 1, a * a / 2, np.abs(a) - 0.5)))


def test_losses_by_hand() -> None:
    torch = pytest.importorskip("torch")
    got, wanted = normal(2, 6, 4, 3, 3), normal(3, 6, 7, 3, 3)
    maps = [(x.astype(np.float64) ** 2).sum(1).reshape(6, -1) for x in (got, wanted)]
    first, second = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in maps)
    found = attention_loss(torch.tensor(got), torch.tensor(wanted))
    assert float(found) == pytest.approx(((first - second) ** 2).sum(1).mean(), rel=1e-4)
    (d1, a1), (d2, a2) = by_hand(got), by_hand(wanted)
    tensor = torch.tensor(got, requires_grad=True)
    relation = relation_loss(tensor, torch.tensor(wanted))
    assert float(relation.detach()) == pytest.approx(huber(d1 - d2) + 2 * huber(a1 - a2), rel=1e-3)
    relation.backward()
    assert torch.isfinite(tensor.grad).all()
    assert float(relation_loss(torch.tensor(got), torch.tensor(3 * got + 1))) < 1e-6


def test_samples_that_are_all_the_same_have_finite_relations() -> None:
    torch = pytest.importorskip("torch")
    same = torch.full((5, 700), 1e4, requires_grad=True)
    loss = relation_loss(same + 0.0, torch.tensor(normal(3, 5, 40)))
    loss.backward()
    assert float(loss.detach()) < 10
    assert torch.isfinite(same.grad).all()


def test_pooled_values_with_and_without_their_axes(network) -> None:
    """[N, C] learns [N, C, 1, 1]: sample by sample, not each from all."""
    torch = pytest.importorskip("torch")
    student, teacher = network(8, 16), network(8, 16)
    mine, others = (tensors_of(m, feeds()) for m in (student, teacher))
    hints = make_hints(student, teacher, [(mine["f"], others["p"])], CONFIG, feeds())
    assert hints is not None
    value = torch.tensor(Session(teacher).run(feeds(), ["f"])["f"])
    assert float(hints.loss([value, value], [value[:, :, None, None]])) == 0


def test_projections_learn_and_go(network) -> None:
    """They have gradients, the outputs do not feel them, and nothing of them is left."""
    torch = pytest.importorskip("torch")
    from passes.remove_unused import RemoveUnused
    from quant.train.module import Trainable

    plain, teacher = network(4, 8), network(8, 16, 7)
    student = plain.clone()
    pairs = matched(tensors_of(student, feeds()), tensors_of(teacher, feeds()), {"y"})
    config = DistillConfig(relation_weight=0.5, feature_weight=1.0)
    hints = make_hints(student, teacher, pairs, config, feeds())
    assert hints is not None
    module = Trainable(student)
    added = set(module.known) - set(Trainable(plain).known)
    assert added == {"sr_projection", "cr_projection", "f_projection"}
    task = Task(student, teacher, TrainConfig(), labelled=False, hints=hints)
    computed = module.run(feeds(), task.names)
    other = Session(teacher).run(
        {n: torch.tensor(v) for n, v in feeds().items()}, task.teacher_names
    )
    values, wanted = [computed[n] for n in task.names], [other[n] for n in task.teacher_names]
    assert computed["sr_projected"].shape == (4, 8, 8, 8)
    whole, outputs = task.loss(values, wanted, None), task.distance(values, wanted, None)
    assert float(whole.detach()) > float(outputs.detach())
    whole.backward()
    assert all(module.parameters[n].grad.abs().sum() > 0 for n in (*added, "w1"))
    result = module.written()
    RemoveUnused().apply(result)
    assert list(result.graph.initializers) == list(plain.graph.initializers)
    np.testing.assert_array_equal(
        Session(result).run(feeds())["y"], Session(plain).run(feeds())["y"]
    )


def test_a_projection_starts_at_the_best_one(network) -> None:
    """Of a student that is half of its teacher's channels, and of one that knows more."""
    teacher, student = network(8, 16), network(4, 8)
    w = teacher.graph.initializers["w1"].const_value.numpy()
    student.graph.initializers["w1"].const_value = ir.tensor(w[:4], name="w1")
    mine, others = (tensors_of(m, feeds()) for m in (student, teacher))
    pairs = [(mine["a"], others["a"])]
    hints = make_hints(student, teacher, pairs, CONFIG, feeds())
    assert hints is not None
    got = Session(student).run(feeds(), ["a_projected"])["a_projected"]
    wanted = Session(teacher).run(feeds(), ["a"])["a"]
    np.testing.assert_allclose(got[:, :4], wanted[:, :4], atol=0.01 * wanted.std())
    rows = Session(student).run(feeds(), ["a"])["a"].transpose(0, 2, 3, 1).reshape(-1, 4)
    targets = wanted.transpose(0, 2, 3, 1).reshape(-1, 8)
    best = np.linalg.lstsq(rows, targets, rcond=None)[0]
    error = np.mean((got.transpose(0, 2, 3, 1).reshape(-1, 8) - targets) ** 2)
    assert error == pytest.approx(np.mean((rows @ best - targets) ** 2), rel=1e-3)


def test_labels_alone_with_hints(network) -> None:
    student, teacher = network(8, 16), network(8, 16, 7)
    pairs = matched(tensors_of(student, feeds()), tensors_of(teacher, feeds()), {"y"})
    hints = make_hints(student, teacher, pairs, CONFIG, feeds())
    task = Task(student, teacher, TrainConfig(label_weight=1.0), labelled=True, hints=hints)
    assert task.teacher_names == ["sr", "cr", "f"]
    assert len(student.graph) == len(teacher.graph)  # as wide as the teacher: no projection


def test_blocks_that_can_go(network, run_ort) -> None:
    model = network(8, 16)
    assert blocks_of(model) == ["n3"]
    small, costs, gone = drop_blocks(model, 0.1, lambda m: float(len(m.graph)))
    assert gone == ["n3"]
    assert costs == {"n3": len(small.graph)}
    assert [n.op_type for n in small.graph].count("Conv") == 2
    w = {n: v.const_value.numpy() for n, v in model.graph.initializers.items()}
    zero = model.clone()
    zero.graph.initializers["w2"].const_value = type(small.graph.initializers["w1"].const_value)(
        np.zeros_like(w["w2"]), name="w2"
    )
    np.testing.assert_allclose(run_ort(small, feeds())[0], run_ort(zero, feeds())[0], atol=1e-5)


def test_blocks_that_must_stay(make) -> None:
    """Two branches that are added, another shape around the block, an output of the model."""
    model = make(
        """g (float[N,4] x, float[4,4] w, float[1,4] v) => (float[N,4] y)
        { a = MatMul(x, w)  b = Neg(x)  c = Add(a, b)  r = Relu(v)  d = Add(c, r)
          e = MatMul(d, w)  y = Add(e, d) }""",
        w=normal(1, 4, 4), v=normal(2, 1, 4),
    )  # fmt: skip
    assert blocks_of(model) == []
    with pytest.raises(UsageError, match="no residual block"):
        drop_blocks(model, 0.5, lambda _: 0.0)


def test_the_least_important_goes_first(make) -> None:
    model = make(
        """g (float[N,4] x, float[4,4] w, float[4,4] u) => (float[N,4] y)
        { a = Relu(x)  b = MatMul(a, w)  c = Add(a, b)  d = MatMul(c, u)  e = Add(d, c)  y = Neg(e) }""",
        w=normal(1, 4, 4), u=normal(2, 4, 4) / 1000,
    )  # fmt: skip
    x = {"x": normal(3, 8, 4)}
    wanted = Session(model).run(x)["y"]
    loss = lambda m: float(np.square(Session(m).run(x)["y"] - wanted).sum())  # noqa: E731
    _, costs, gone = drop_blocks(model, 0.5, loss)
    assert gone == ["n4"]
    assert costs["n4"] < costs["n2"]
    assert len(without(model, ["n2", "n4"]).graph) == 2
