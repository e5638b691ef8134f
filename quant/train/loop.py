"""The training loop of all methods."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from infer_runtime.errors import LimitIsUp, MismatchError
from quant.train.extra import import_torch
from quant.train.state import State, identity, load_state, save_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from quant.train.config import TrainConfig
    from quant.train.module import Trainable
    from quant.train.task import Task

    Array = np.ndarray[Any, Any]
    Batch = tuple[Mapping[str, Array], Array | None]
    Teacher = Callable[[Mapping[str, Array]], Sequence[Any]]

MOMENTUM = 0.9
SETTLING = 20  # batches of an epoch, for what follows from the parameters
UNKNOWN_MAGNITUDE = 0.01  # of a parameter that is all zeros


class TrainingData(Protocol):
    """Samples as the loop needs them."""

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        ...

    def epoch(self, number: int) -> Iterator[Batch]:
        """Feeds and labels in the order of epoch `number`; the same each time it is asked for."""
        ...

    def validation(self) -> Iterator[Batch]:
        """Samples that are not trained on, by which epochs are compared."""
        ...


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to; `metric` is of the validation samples, larger is better."""

    number: int
    loss: float
    metric: float
    best: float
    seconds: float


@dataclass
class Training:
    """How training went; the module holds the values of the best epoch."""

    metric: str
    start: float  # the metric before the first step
    best: float
    best_epoch: int
    epochs: list[Epoch] = field(default_factory=list)
    stopped: BaseException | None = None  # a time limit or Ctrl-C that ended it early


@dataclass(frozen=True)
class Hooks:
    """What happens around the loop: `epoch` after each one, `step` after each step.

    `project` changes the parameters after each step, to what a method allows (masks, signs).
    `settled` is the first epoch after which the model is what the method makes of it: no epoch
    before it is the best one, whatever its metric.
    """

    epoch: Callable[[Epoch], None] = lambda _: None
    step: Callable[[int], None] = lambda _: None
    project: Callable[[], None] = lambda: None
    settled: int = 0


class Trainer:
    """One training of one module.

    Args:
        module: its parameters are trained in place.
        task: the loss.
        teacher: computes the values of `task.teacher_names` for some feeds.
        data: batches.
        config: the options; the seed is in `data`.
        hooks: see `Hooks`.

    """

    def __init__(
        self,
        module: Trainable,
        task: Task,
        teacher: Teacher,
        data: TrainingData,
        config: TrainConfig,
        hooks: Hooks | None = None,
    ) -> None:
        self.module, self.task, self.teacher = module, task, teacher
        self.data, self.config, self.hooks = data, config, hooks or Hooks()
        self.total = config.epochs * data.steps
        self.optimizer = _optimizer(module, config)
        self.digest = identity(config, self._arrays())

    def run(self) -> Training:
        """Train; the module then holds the best values.

        LimitIsUp or KeyboardInterrupt ends the loop and is in the result, not raised.

        Raises:
            MismatchError: the loss is not finite; the module holds the last good values.
            UsageError: the checkpoint is of another training.

        """
        metric = "top1" if self.task.labelled else "-loss"
        found: Training | None = None
        state = State(0, self._arrays(), self._arrays(), 0, -math.inf)
        try:
            if (resumed := self._resumed()) is not None:
                state = resumed
            else:
                state.best_metric = self._metric()
            found = Training(metric, state.best_metric, state.best_metric, state.best_epoch)
            for number in range(state.epoch + 1, self.config.epochs + 1):
                self._epoch(number, state, found)
                if 0 < self.config.patience <= state.stale:
                    break
        except (LimitIsUp, KeyboardInterrupt) as error:
            if isinstance(error, LimitIsUp):
                error.heard = True
            found = found or Training(metric, state.best_metric, state.best_metric, 0)
            found.stopped = error
        found.best, found.best_epoch = state.best_metric, state.best_epoch
        self._restore(state.best)
        return found

    def _epoch(self, number: int, state: State, found: Training) -> None:
        start = time.perf_counter()
        losses = []
        for step, (feeds, labels) in enumerate(self.data.epoch(number)):
            losses.append(self._step((number - 1) * self.data.steps + step, feeds, labels))
            if not math.isfinite(losses[-1]):
                self._restore(state.best)
                raise MismatchError(
                    f"the loss is {losses[-1]} in step {step + 1} of epoch {number}; lower "
                    "--learning-rate; no file was written"
                )
            self.hooks.step(1)
        self.module.settle(feeds for feeds, _ in islice(self.data.epoch(number), SETTLING))
        metric = self._metric()
        arrays = self._arrays()
        if number <= self.hooks.settled:
            state.best_metric = -math.inf
        state.stale = 0 if metric > state.best_metric else state.stale + 1
        state.epoch, state.current, state.optimizer = number, arrays, self._remembered()
        if metric >= state.best_metric:  # of two that are equal the one that learnt longer
            state.best, state.best_epoch, state.best_metric = arrays, number, metric
        seconds = time.perf_counter() - start
        mean = sum(losses) / max(len(losses), 1)
        found.epochs.append(Epoch(number, mean, metric, state.best_metric, seconds))
        if self.config.checkpoint is not None:
            save_state(self.config.checkpoint, state, self.digest)
        self.hooks.epoch(found.epochs[-1])

    def _step(self, step: int, feeds: Mapping[str, Array], labels: Array | None) -> float:
        torch = import_torch()
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, self.total, self.config)
        with torch.no_grad():
            wanted = self.teacher(feeds)
        computed = self.module.run(feeds, self.task.names)
        loss = self.task.loss([computed[n] for n in self.task.names], wanted, labels)
        value = float(loss.detach())
        if math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.hooks.project()
        return value

    def _metric(self) -> float:
        """Share of hits where there are labels, else the loss below zero."""
        torch = import_torch()
        total, count = 0.0, 0
        with torch.no_grad():
            for feeds, labels in self.data.validation():
                computed = self.module.run(feeds, self.task.names)
                values = [computed[n] for n in self.task.names]
                size = len(values[0])
                if self.task.labelled and labels is not None:
                    total += self.task.hits(values, labels)
                else:
                    total -= size * float(self.task.distance(values, self.teacher(feeds), labels))
                count += size
        value = total / max(count, 1)
        return value if math.isfinite(value) else -math.inf

    def _resumed(self) -> State | None:
        path = self.config.checkpoint
        if path is None or not path.exists():
            return None
        torch = import_torch()
        state = load_state(path, self.digest)
        self._restore(state.current)
        memory: dict[int, dict[str, Any]] = {}
        for key, value in state.optimizer.items():
            number, _, name = key.partition("/")
            memory.setdefault(int(number), {})[name] = torch.tensor(value)
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": memory})
        return state

    def _remembered(self) -> dict[str, Array]:
        memory = self.optimizer.state_dict()["state"]
        return {
            f"{number}/{name}": value.detach().cpu().numpy().copy()
            for number, values in memory.items()
            for name, value in values.items()
            if value is not None
        }

    def _arrays(self) -> dict[str, Array]:
        return {n: v.detach().cpu().numpy().copy() for n, v in self.module.parameters.items()}

    def _restore(self, values: Mapping[str, Array]) -> None:
        torch = import_torch()
        with torch.no_grad():
            for name, value in self.module.parameters.items():
                value.copy_(self.module.tensor(values[name]))


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """A linear rise over the warm-up, then half a cosine down to 0 (Loshchilov, Hutter 2017)."""
    rise = max(1, round(config.warmup * total))
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    done = (step - rise) / max(1, total - rise)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _optimizer(module: Trainable, config: TrainConfig) -> Any:
    """Every parameter in a group of its own, whose learning rate follows its magnitude.

    Weights of an imported graph have any scale: normalisations are folded into them, and inputs
    may be bytes. `share` makes a step what it would be for the parameter over its magnitude m:
    Adam's times m, that of a gradient times m * m. Weights decay, other parameters do not.
    """
    torch = import_torch()
    groups = []
    for name, parameter in module.known.items():
        value = module.parameters[name]
        size = float(value.detach().square().mean().sqrt()) or UNKNOWN_MAGNITUDE
        is_weight = parameter.role == "weight"
        share = size * size if config.optimizer == "sgd" else size
        decay = config.weight_decay / share if is_weight else 0.0
        groups.append({"params": [value], "weight_decay": decay, "share": share})
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=0.0)
