"""Run source and candidate over the same samples and measure accuracy and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.data import open_dataset
from infer_tool.engines import open_engine
from infer_tool.metrics import TOP_K, Evaluation, check_labels, choose_metric
from infer_tool.timing import Contestant, measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from infer_runtime import TensorInfo
    from infer_tool.config import Data, Timing
    from infer_tool.data import Dataset
    from infer_tool.engines import Engine
    from infer_tool.report.model import Accuracy, Latency
    from infer_tool.ui import Terminal

BATCH = 16  # large enough for speed, small enough that activations of large models fit


def feed_batch(inputs: Sequence[TensorInfo], wanted: int = BATCH) -> int:
    """Samples in one run: the model's fixed first dimension, or `wanted` when it is dynamic."""
    sizes = {i.shape[0] for i in inputs if i.shape and isinstance(i.shape[0], int)}
    if len(sizes) > 1:
        raise UsageError(f"the inputs have different fixed batch sizes: {sorted(sizes)}")
    return sizes.pop() if sizes else wanted


def data_feeds(
    config: Data, inputs: Sequence[TensorInfo], batch: int, samples: int
) -> list[dict[str, Any]]:
    """Batches of the user's samples: as many as the configuration says, else up to `samples`.

    Raises:
        UsageError: the data does not fit, or is less than one batch of the model.

    """
    assert config.data is not None
    dataset = open_dataset(config.data, inputs, preprocess=config.preprocess)
    dataset = dataset.subset(min(config.samples or samples, len(dataset)))
    fixed = any(i.shape and isinstance(i.shape[0], int) for i in inputs)
    size = feed_batch(inputs, batch)
    feeds = [feed for feed, _ in full_batches(dataset, size, fixed)]
    if not feeds:
        raise UsageError(f"{config.data}: {len(dataset)} samples, the model takes {size} at once")
    return feeds


def full_batches(dataset: Dataset, size: int, fixed: bool) -> Any:
    """Batches of `size`; a model with a fixed batch never sees a smaller last one."""
    for feeds, labels in dataset.batches(size):
        if not fixed or len(next(iter(feeds.values()))) == size:
            yield feeds, labels


def evaluate(
    ui: Terminal, reference: Engine, candidate: Engine, dataset: Dataset, metric: str
) -> Accuracy:
    """Stream the samples through both engines; labels and shapes are checked on the first batch."""
    size = feed_batch(candidate.inputs)
    fixed = any(i.shape and isinstance(i.shape[0], int) for i in candidate.inputs)
    totals: Evaluation | None = None
    with ui.step("evaluate", len(dataset)) as advance:
        for feeds, labels in full_batches(dataset, size, fixed):
            wanted, got = reference.run(feeds), candidate.run(feeds)
            if totals is None:
                totals = _start(metric, candidate, wanted, labels)
            if labels is not None and totals.metric in TOP_K:
                check_labels(labels, next(iter(wanted.values())))
            totals.add(wanted, got, labels)
            advance(len(next(iter(feeds.values()))))
    if totals is None:
        raise UsageError(
            f"the evaluation part holds {len(dataset)} samples, fewer than one batch of {size}"
        )
    return totals.result()


def _start(
    metric: str, candidate: Engine, wanted: Mapping[str, np.ndarray[Any, Any]], labels: Any
) -> Evaluation:
    name, user = choose_metric(metric, next(iter(wanted.values())), labels)
    return Evaluation(name, f"{candidate.name} {candidate.version}", user)


def latency(
    ui: Terminal,
    engines: Mapping[str, Engine],
    feeds: Mapping[str, np.ndarray[Any, Any]],
    threads: int,
    runs: int,
) -> list[Latency]:
    """Time the engines in turns on the same feeds."""
    batch = len(next(iter(feeds.values())))
    contestants = [Contestant(n, e, threads, batch, feeds) for n, e in engines.items()]
    warmup = max(3, runs // 10)
    with ui.step("latency", warmup + runs) as advance:
        return measure(contestants, runs, warmup, advance)


def source_and_result(
    ui: Terminal, config: Timing, name: str, source: ir.Model, path: Path, data: Dataset
) -> list[Latency]:
    """Latency of a model and of the file that was made of it, on one sample."""
    engines = {
        "source": open_engine(name, source, threads=config.threads),
        "result": open_engine(name, path, threads=config.threads),
    }
    feeds, _ = next(iter(data.batches(feed_batch(engines["source"].inputs, 1))))
    return latency(ui, engines, feeds, config.threads, config.runs)
