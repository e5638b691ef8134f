"""The training loop: what it changes, that it goes on after a kill, how it ends early."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from infer_runtime.errors import LimitIsUp, MismatchError, UnsupportedOpError, UsageError
from quant.train.config import TrainConfig
from quant.train.loop import Hooks, Trainer, learning_rate
from quant.train.module import Trainable
from quant.train.roles import parameters_of
from quant.train.task import Task

torch = pytest.importorskip("torch")

TEXT = """g (float[N,4] x, float[4,16] w1, float[16] b1, float[16,3] w2, float[3] b2) => (float[N,3] y)
    { a = Gemm(x, w1, b1)  r = Relu(a)  s = Gemm(r, w2, b2)  y = Softmax(s) }"""
CONFIG = TrainConfig(epochs=6, batch_size=16, learning_rate=0.05, label_weight=1.0)


class Points:
    """Three classes of points in four dimensions; 96 to train on, 48 held back."""

    steps = 6

    def __init__(self) -> None:
        r = np.random.default_rng(5)
        centres = 2 * r.normal(size=(3, 4))
        self.labels = r.integers(0, 3, 144)
        self.x = (centres[self.labels] + r.normal(size=(144, 4))).astype(np.float32)

    def _part(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return {"x": self.x[rows]}, self.labels[rows]

    def epoch(self, number: int) -> Iterator[Any]:
        order = np.random.default_rng(number).permutation(96)
        return (self._part(order[i : i + 16]) for i in range(0, 96, 16))

    def validation(self) -> Iterator[Any]:
        return iter([self._part(np.arange(96, 144))])


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side: threads that wait for each other would take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(make):
    r = np.random.default_rng(6)
    shapes = {"w1": (4, 16), "b1": (16,), "w2": (16, 3), "b2": (3,)}
    return make(TEXT, **{n: (0.3 * r.normal(size=s)).astype(np.float32) for n, s in shapes.items()})


def trainer(model: ir.Model, config: TrainConfig = CONFIG, hooks: Hooks | None = None) -> Trainer:
    module = Trainable(model)
    task = Task(model, model, config, labelled=True)
    source = Trainable(model)

    def teacher(feeds: Any) -> list[Any]:
        found = source.run(feeds, task.teacher_names)
        return [found[n] for n in task.teacher_names]

    return Trainer(module, task, teacher, Points(), config, hooks)


def values(made: Trainer) -> dict[str, np.ndarray]:
    return {n: v.detach().numpy().copy() for n, v in made.module.parameters.items()}


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 0.05), ("sgd", 1.0)])
def test_it_learns_and_the_file_holds_what_was_learnt(model, run_ort, optimizer, rate) -> None:
    config = replace(CONFIG, optimizer=optimizer, learning_rate=rate, label_weight=0.5)
    made = trainer(model, config)
    training = made.run()
    assert training.metric == "top1"
    assert training.best > training.start + 0.2
    assert training.best > 0.8
    feeds, _ = next(Points().validation())
    written = made.module.written()
    assert list(written.graph.initializers) == list(model.graph.initializers)
    np.testing.assert_allclose(
        run_ort(written, feeds)[0], made.module.values(feeds)["y"], rtol=1e-4, atol=1e-6
    )
    assert not np.allclose(run_ort(written, feeds)[0], run_ort(model, feeds)[0], atol=1e-2)


def test_twice_the_same(model) -> None:
    first, second = trainer(model), trainer(model)
    first.run()
    second.run()
    for name, value in values(first).items():
        np.testing.assert_array_equal(values(second)[name], value)


def test_what_a_kill_leaves_goes_on_to_the_same_end(model, tmp_path) -> None:
    whole = trainer(model)
    whole.run()
    config = replace(CONFIG, checkpoint=tmp_path / "state.npz")

    def stop(epoch: Any) -> None:
        if epoch.number == 3:
            raise MemoryError  # as good as a kill: nothing handles it

    with pytest.raises(MemoryError):
        trainer(model, config, Hooks(epoch=stop)).run()
    resumed = trainer(model, config)
    training = resumed.run()
    assert [e.number for e in training.epochs] == [4, 5, 6]
    for name, value in values(whole).items():
        np.testing.assert_array_equal(values(resumed)[name], value)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_a_checkpoint_of_another_training(model, tmp_path) -> None:
    path = tmp_path / "state.npz"
    trainer(model, replace(CONFIG, epochs=1, checkpoint=path)).run()
    with pytest.raises(UsageError, match="another model, data or options"):
        trainer(model, replace(CONFIG, epochs=2, checkpoint=path)).run()
    path.write_bytes(b"no archive")
    with pytest.raises(UsageError, match="not a checkpoint"):
        trainer(model, replace(CONFIG, checkpoint=path)).run()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), LimitIsUp("spent")])
def test_the_best_so_far_when_it_is_stopped(model, error) -> None:
    kept: dict[str, Any] = {}

    def step(_: int) -> None:
        kept["steps"] = kept.get("steps", 0) + 1
        if kept["steps"] == 21:  # in the fourth epoch
            raise error

    made = trainer(model, hooks=Hooks(step=step))
    training = made.run()
    assert training.stopped is error
    assert [e.number for e in training.epochs] == [1, 2, 3]
    feeds, labels = next(Points().validation())
    hits = made.module.values(feeds)["y"].argmax(1) == labels
    assert hits.mean() == training.best == max(e.metric for e in training.epochs)


def test_a_loss_that_is_no_number(model) -> None:
    made = trainer(model)
    before = values(made)
    weight = made.module.parameters["w1"]

    def poison() -> None:
        with torch.no_grad():
            weight.fill_(float("nan"))

    made.hooks = Hooks(project=poison)
    with pytest.raises(MismatchError, match="the loss is nan in step 2 of epoch 1"):
        made.run()
    for name, value in before.items():
        np.testing.assert_array_equal(values(made)[name], value)


def test_patience(model) -> None:
    training = trainer(model, replace(CONFIG, learning_rate=0.0, patience=2)).run()
    assert len(training.epochs) == 2
    assert training.best == training.start


def test_the_schedule() -> None:
    config = TrainConfig(epochs=1, learning_rate=1.0, warmup=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 1e-3


def test_imitation_of_itself_costs_nothing(model) -> None:
    config = replace(CONFIG, label_weight=0.0)
    task = Task(model, model, config, labelled=False)
    assert task.names == ["s"]  # what Softmax reads: its logits
    feeds, _ = next(Points().validation())
    (scores,) = (v.detach() for v in Trainable(model).run(feeds, ["s"]).values())
    assert float(task.loss([scores], [scores], None)) == pytest.approx(0, abs=1e-5)
    t, other = config.temperature, scores + torch.linspace(0, 1, 3)
    p, q = torch.softmax(scores / t, 1), torch.softmax(other / t, 1)
    expected = t * t * (p * (p / q).log()).sum(1).mean()
    assert float(task.loss([other], [scores], None)) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("classes", [True, False])
def test_what_a_model_needs_without_labels(make, classes) -> None:
    """The squared gradients of the random loss are the diagonal of its curvature, in the mean."""
    r = np.random.default_rng(1)
    w = r.normal(size=(4, 3)).astype(np.float32)
    last = "y = Softmax(s)" if classes else "y = Identity(s)"
    model = make(
        f"g (float[N,4] x, float[4,3] w) => (float[N,3] y) {{ s = MatMul(x, w)  {last} }}", w=w
    )
    task = Task(model, model, replace(CONFIG, label_weight=0.0), labelled=False)
    module, generator = Trainable(model), torch.Generator().manual_seed(0)
    x = (r.normal(size=(32, 4)) * [3, 1, 0.3, 0.1]).astype(np.float32)
    squares = np.zeros_like(w)
    for _ in range(400):
        module.parameters["w"].grad = None
        computed = module.run({"x": x}, task.names)
        task.sampled_loss([computed[n] for n in task.names], generator).backward()
        squares += module.parameters["w"].grad.numpy() ** 2 / 400
    s = x @ w
    if classes:
        p = np.exp(s) / np.exp(s).sum(1, keepdims=True)
        wanted = (x**2).T @ (p * (1 - p)) / len(x)
    else:
        wanted = np.repeat((x**2).sum(0)[:, None], 3, 1) / s.size / s.var()
    np.testing.assert_allclose(squares, wanted, rtol=0.3)


def test_labels_that_are_missing(model) -> None:
    with pytest.raises(UsageError, match="--label-weight 1: the data has no labels"):
        Task(model, model, CONFIG, labelled=False)


def test_roles(make) -> None:
    model = make(
        """g (float[N,4] x, float[4,8] w, float[8] b, float[8] mask, int64[2] shape, float[2,4] table,
        int64[1] index) => (float[N,8] y)
        { a = MatMul(x, w)  c = Add(a, b)  d = Mul(c, mask)  e = Reshape(d, shape)
          t = Gather(table, index)  u = ReduceSum(t)  y = Add(e, u) }""",
        w=np.ones((4, 8), np.float32), b=np.ones(8, np.float32), mask=np.ones(8, np.float32),
        shape=np.array([-1, 8]), table=np.ones((2, 4), np.float32), index=np.array([1]),
    )  # fmt: skip
    found = {p.name: p.role for p in parameters_of(model).values()}
    assert found == {"w": "weight", "b": "bias", "table": "weight"}


def test_nothing_to_train(make) -> None:
    with pytest.raises(UsageError, match="no float weights"):
        Trainable(make("g (float[N,4] x) => (float[N,4] y) { y = Neg(x) }"))


def test_an_operator_without_a_gradient_is_named(make) -> None:
    model = make(
        """g (float[N,4] x, float[4,4] w, float s, uint8 z) => (float[N,4] y)
        { a = MatMul(x, w)  q = QuantizeLinear(a, s, z)  y = DequantizeLinear(q, s, z) }""",
        w=np.ones((4, 4), np.float32), s=np.float32(0.1), z=np.uint8(3),
    )  # fmt: skip
    with pytest.raises(UnsupportedOpError, match=r"node n1 \(QuantizeLinear\) has no gradient"):
        Trainable(model).run({"x": np.ones((2, 4), np.float32)})
