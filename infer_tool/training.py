"""Training as the commands run it: the data's parts, progress, the ledger, an early end."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime import Session
from infer_runtime.errors import InferError, InterruptError, LimitError, UsageError
from infer_tool.data import load_function, open_dataset
from infer_tool.evaluate import feed_batch, full_batches
from infer_tool.ledger import stage
from infer_tool.metrics import check_labels, is_classifier
from infer_tool.reason import reason
from quant.train.config import TrainConfig
from quant.train.extra import import_torch
from quant.train.loop import Hooks, Trainer
from quant.train.module import Trainable
from quant.train.normal import LEAST_BATCH, Normalized
from quant.train.task import Task, check_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx_ir as ir

    from infer_runtime import TensorInfo
    from infer_tool.config import Compress, Quantize
    from infer_tool.data import Dataset
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.distill.hints import Hints
    from quant.train.loop import Epoch, Training

    Array = np.ndarray[Any, Any]
    Feeds = dict[str, Array]
    Batch = tuple[Feeds, Array | None]

EVALUATION_SHARE = 0.2  # of --data, where no --eval is given
STATISTICS_BATCHES = 8
VALIDATION_SHARE, VALIDATION_SAMPLES = 0.1, 500  # of the training samples, at most


def open_parts(
    config: Compress | Quantize, inputs: tuple[TensorInfo, ...]
) -> tuple[Dataset, Dataset]:
    """Disjoint training and evaluation samples.

    Raises:
        UsageError: there are none, or too few.

    """
    if config.data is None:
        raise UsageError("no training data: give --data DATA, and --eval DATA if it is apart")
    whole = open_dataset(config.data, inputs, preprocess=config.preprocess)
    if config.eval is not None:
        evaluation = open_dataset(config.eval, inputs, preprocess=config.preprocess)
    else:
        count = len(whole) - round(EVALUATION_SHARE * len(whole))
        if count == len(whole):
            raise UsageError(f"{config.data}: {len(whole)} samples are too few to be split")
        whole, evaluation = whole.split(count, config.seed)
    return whole, evaluation.subset(config.samples) if config.samples else evaluation


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads, 0 for all cores, and then as many as before.

    Raises:
        MissingExtraError: torch is not installed.

    """
    torch = import_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(count or os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Samples:
    """Batches of the training samples; a part of them is held back to compare epochs."""

    training: Dataset
    held_back: Dataset
    size: int
    fixed: bool  # is it the only size that the model takes?
    seed: int
    augment: Callable[..., Any] | None
    name: str  # of the function that augments

    @property
    def steps(self) -> int:
        """Full batches of an epoch."""
        return len(self.training) // self.size

    def epoch(self, number: int) -> Iterator[Batch]:
        """In an order that seed and number decide."""
        generator = np.random.default_rng([self.seed, number])
        order = generator.permutation(self.training.order)[: self.steps * self.size]
        shuffled = type(self.training)(self.training.samples, order)
        for feeds, labels in shuffled.batches(self.size):
            yield self._changed(feeds, generator), labels

    def validation(self) -> Iterator[Batch]:
        """The samples that were held back; full batches only where the model takes no others."""
        yield from full_batches(self.held_back, self.size, self.fixed)

    def _changed(self, feeds: Feeds, generator: np.random.Generator) -> Feeds:
        if self.augment is None:
            return feeds
        try:
            changed = self.augment(dict(feeds), generator)
            found = {name: np.asarray(changed[name], x.dtype) for name, x in feeds.items()}
        except InferError:
            raise  # not the function's own: the time is up
        except Exception as error:
            # The user's own code: whatever it raises is the answer.
            raise UsageError(f"--augment {self.name}: {reason(error)}") from error
        for name, value in feeds.items():
            if found[name].shape != value.shape:
                raise UsageError(
                    f"--augment {self.name}: {name!r} has shape {list(found[name].shape)}, "
                    f"expected {list(value.shape)}"
                )
        return found


def samples_for(
    config: Compress | Quantize, data: Dataset, inputs: tuple[TensorInfo, ...]
) -> Samples:
    """Batches of the size that the model takes, and a part held back.

    Raises:
        UsageError: fewer samples than one batch for each part.

    """
    size = feed_batch(inputs, config.batch_size)
    held = max(min(round(VALIDATION_SHARE * len(data)), VALIDATION_SAMPLES), size)
    if len(data) < held + size:
        raise UsageError(
            f"{config.data}: {len(data)} training samples, needs {held} to compare epochs and "
            f"{size} for a step; lower --batch-size"
        )
    training, held_back = data.split(len(data) - held, config.seed)
    augment = load_function(config.augment) if config.augment else None
    fixed = any(i.shape and isinstance(i.shape[0], int) for i in inputs)
    return Samples(training, held_back, size, fixed, config.seed, augment, config.augment)


class Lesson:
    """What one command trains: the samples, the source to imitate, the loss."""

    def __init__(self, config: Compress | Quantize, source: ir.Model, data: Dataset) -> None:
        """Check that labels and outputs fit, before any work."""
        if config.checkpoint is not None and not config.checkpoint.parent.is_dir():
            raise UsageError(f"--checkpoint {config.checkpoint}: no such folder; create it first")
        session = Session(source)
        self.config, self.source, self.session = config, source, session
        self.samples = samples_for(config, data, session.inputs)
        feeds, labels = next(iter(data.batches(self.samples.size)))
        self.outputs = session.run(feeds)
        first = next(iter(self.outputs.values()))
        self.labelled = labels is not None and is_classifier(first)
        if self.labelled and data.labels is not None:
            check_labels(data.labels, first)
        self.feeds = feeds

    @property
    def normalizes(self) -> bool:
        """Are batches so large that one stands for others?"""
        return self.samples.size >= LEAST_BATCH

    def learner(self, model: ir.Model, *, batch_norm: bool) -> Trainable:
        """A model to train: its convolutions behind normalisation, where batches allow it."""
        if not (batch_norm and self.normalizes):
            return Trainable(model)
        batches = islice(self.samples.epoch(0), STATISTICS_BATCHES)
        return Normalized(model, [feeds for feeds, _ in batches])

    def task(self, student: ir.Model, hints: Hints | None = None) -> Task:
        """The loss of a student with the same inputs and outputs."""
        return Task(student, self.source, self.config, labelled=self.labelled, hints=hints)

    def teacher(self, task: Task, module: Trainable) -> Callable[[Mapping[str, Array]], list[Any]]:
        """The source's values for the loss, without gradients."""
        torch, names = import_torch(), task.teacher_names

        def run(feeds: Mapping[str, Array]) -> list[Any]:
            if not names:
                return []
            with torch.no_grad():
                found = self.session.run({n: module.tensor(x) for n, x in feeds.items()}, names)
            return [found[n] for n in names]

        return run

    def loss(self, module: Trainable, feeds: Mapping[str, Array], labels: Array | None) -> Any:
        """The loss of a module on one batch."""
        task = self.task(module.model)
        computed = module.run(feeds, task.names)
        wanted = self.teacher(task, module)(feeds)
        return task.loss([computed[n] for n in task.names], wanted, labels)

    def sensitivity(self) -> Callable[[Trainable, Mapping[str, Array], Array | None], Any]:
        """The loss whose gradients say what a module needs: with labels theirs, else a random one.

        The same losses in the same order for the same seed.
        """
        generator = import_torch().Generator().manual_seed(self.config.seed)

        def loss(module: Trainable, feeds: Mapping[str, Array], labels: Array | None) -> Any:
            task = self.task(module.model)
            if task.label_weight:
                return self.loss(module, feeds, labels)
            computed = module.run(feeds, task.names)
            return task.sampled_loss([computed[n] for n in task.names], generator)

        return loss

    def train(
        self,
        report: Report,
        ui: Terminal,
        module: Trainable,
        options: TrainConfig | None = None,
        project: Callable[[], None] = lambda: None,
        hints: Hints | None = None,
        settled: int = 0,
    ) -> Training:
        """Train a module in place; one line in the ledger. `project`, `settled`: see `Hooks`.

        Raises:
            UsageError: the outputs do not fit; the checkpoint is of another training.
            MismatchError: the loss is not finite.
            UnsupportedOpError: an operator has no gradient.

        """
        config = options or self.config
        task = self.task(module.model, hints)
        check_heads(module.values(self.feeds), self.outputs)
        total = config.epochs * self.samples.steps
        with ui.step("train", total) as advance, stage(report, "train") as line:

            def log(epoch: Epoch) -> None:
                ui.log(_epoch_line(epoch, config, task))

            hooks = Hooks(log, advance, project, settled)
            teacher = self.teacher(task, module)
            trainer = Trainer(module, task, teacher, self.samples, config, hooks)
            training = trainer.run()
            line.options = _options(config, training)
        return training


def _epoch_line(epoch: Epoch, config: TrainConfig, task: Task) -> str:
    left = (config.epochs - epoch.number) * epoch.seconds
    metric = "top1" if task.labelled else "-loss"
    return (
        f"epoch {epoch.number}/{config.epochs}: loss {epoch.loss:.4f}, {metric} "
        f"{epoch.metric:.4f}, best {epoch.best:.4f}; {epoch.seconds:.1f} s, {left:.0f} s left"
    )


def _options(config: TrainConfig, training: Training) -> dict[str, Any]:
    """The options, and what came of them."""
    options = {f.name: getattr(config, f.name) for f in fields(TrainConfig)}
    return options | {
        "metric": training.metric,
        "before": training.start,
        "best": training.best,
        "best_epoch": training.best_epoch,
        "losses": [epoch.loss for epoch in training.epochs],
        "stopped": training.stopped is not None,
    }


def raise_stopped(report: Report, config: Compress | Quantize, training: Training) -> None:
    """The status of a training that ended early: its best so far is written, and not a success.

    Raises:
        LimitError: a limit of time or memory was reached.
        InterruptError: Ctrl-C.

    """
    if training.stopped is None:
        return
    reached = f"best so far ({training.metric} {training.best:.4f}, epoch {training.best_epoch})"
    what = f"the {reached} is written to {config.output}"
    error: LimitError | InterruptError
    if isinstance(training.stopped, KeyboardInterrupt):
        error = InterruptError(f"interrupted; {what}")
    else:
        error = LimitError(f"{training.stopped}; {what}")
    report.passed = False
    error.evidence = report
    raise error
