"""Measures a decision on the engine: bytes of the file, accuracy, latency where it is limited."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import ModelError
from infer_tool.emitters.onnx import file_bytes, save_onnx
from infer_tool.engines import open_engine
from infer_tool.evaluate import evaluate, feed_batch, full_batches
from infer_tool.gates import drop_of
from infer_tool.steps import pick_engine
from infer_tool.timing import take_turns
from quant.search.choice import describe, digest
from quant.search.plan import Point

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx_ir as ir

    from infer_tool.config import Quantize
    from infer_tool.data import Dataset
    from infer_tool.engines import Engine
    from infer_tool.search.state import State
    from infer_tool.ui import Terminal
    from quant.search.choice import Assignment
    from quant.search.space import Space

    Array = np.ndarray[Any, Any]

NOISE_SAMPLES = 16  # of calibration: a layer's noise is an average over all their outputs
KEPT_BYTES = 1 << 28  # of the source's outputs; larger ones are computed anew each time
LEAST_SIGNAL = 1e-30


class Remembered:
    """An engine whose outputs for the same batches, in the same order, are computed once."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.version = engine.name, engine.version
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self._engine = engine
        self._kept: list[dict[str, Array]] = []
        self._room = KEPT_BYTES
        self._next = 0

    def again(self) -> None:
        """The next batch is the first one."""
        self._next = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name."""
        place, self._next = self._next, self._next + 1
        if place < len(self._kept):
            return self._kept[place]
        outputs = self._engine.run(feeds)
        size = sum(x.nbytes for x in outputs.values())
        if place == len(self._kept) and size <= self._room:
            self._kept.append(outputs)
            self._room -= size
        return outputs


@dataclass
class EngineJudge:
    """Implements `quant.search.plan.Judge`."""

    space: Space
    source: ir.Model
    calibration: Dataset
    evaluation: Dataset
    config: Quantize
    ui: Terminal
    state: State
    stamp: Callable[[ir.Model], None]
    timed: bool
    engine: str = field(init=False)
    reference: Remembered = field(init=False)
    refused: list[str] = field(default_factory=list)
    _probes: list[dict[str, Array]] = field(init=False)
    _wanted: list[dict[str, Array]] = field(init=False)

    def __post_init__(self) -> None:
        """Open the source, run the samples for noise through it."""
        self.engine = pick_engine(self.config.engine)
        source = open_engine(self.engine, self.source)
        self.reference = Remembered(source)
        fixed = any(i.shape and isinstance(i.shape[0], int) for i in source.inputs)
        size = feed_batch(source.inputs, NOISE_SAMPLES)
        data = self.calibration.subset(max(size, NOISE_SAMPLES))
        self._probes = [feeds for feeds, _ in full_batches(data, size, fixed)]
        self._wanted = [source.run(feeds) for feeds in self._probes]

    def noise(self, name: str, make: Callable[[], ir.Model]) -> float:
        """Mean over the outputs of noise over signal."""
        if name not in self.state.noise:
            with self.ui.step(f"sensitivity of {name}"):
                engine = open_engine(self.engine, make())
                got = [engine.run(feeds) for feeds in self._probes]
            self.state.noise[name] = noise_over_signal(self._wanted, got)
            self.state.save()
        return self.state.noise[name]

    def size(self, assignment: Assignment) -> int:
        """Bytes of the model's file."""
        with self._file(assignment) as path:
            return file_bytes(path)

    def measure(self, assignment: Assignment) -> Point:
        """Bytes, accuracy on the evaluation samples, and latency where it has a limit."""
        name = digest(assignment)
        known = self.state.points.get(name)
        if known is not None and not self.timed:
            return Point(assignment, **known)
        with self.ui.step(f"measure {describe(assignment)}"), self._file(assignment) as path:
            point = self._tried(assignment, path)
        figures = {"bytes": point.bytes, "drop": point.drop, "sqnr_db": point.sqnr_db}
        self.state.points[name] = figures
        self.state.save()
        drop = "-" if point.drop is None else f"{point.drop:.4f}"
        self.ui.log(
            f"  {describe(assignment)}: {point.bytes} bytes, drop {drop}, {point.sqnr_db:.1f} dB"
        )
        return point

    def build(self, assignment: Assignment) -> Any:
        """The quantised model, with what it says of itself."""
        result = self.space.emit(assignment)
        self.stamp(result.model)
        return result

    def _tried(self, assignment: Assignment, path: Path) -> Point:
        """A model that the engine refuses keeps no limit."""
        try:
            return self._run(assignment, path)
        except ModelError as error:
            self.refused.append(f"{describe(assignment)}: {error}")
            return Point(assignment, file_bytes(path), math.inf, -math.inf)

    def _run(self, assignment: Assignment, path: Path) -> Point:
        self.reference.again()
        engine = open_engine(self.engine, path)
        found = evaluate(self.ui, self.reference, engine, self.evaluation, self.config.metric)
        if self.config.max_drop is not None:
            drop_of(found)
        finite = found.max_abs_error < math.inf
        drop = found.drop if finite or found.drop is None else math.inf
        sqnr = found.sqnr_db if finite else -math.inf
        latency = self._latency(path) if self.timed else None
        return Point(assignment, file_bytes(path), drop, sqnr, latency)

    def _latency(self, path: Path) -> float:
        """Median milliseconds of a run."""
        engine = open_engine(self.engine, path, threads=self.config.threads)
        feeds, _ = next(iter(self.evaluation.batches(feed_batch(engine.inputs, 1))))
        runs = self.config.runs
        (seconds,) = take_turns([lambda: engine.run(feeds)], runs, max(3, runs // 10))
        return float(np.median(seconds)) * 1e3

    @contextmanager
    def _file(self, assignment: Assignment) -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            path = Path(folder) / self.config.output.name
            save_onnx(self.build(assignment).model, path)
            yield path


def noise_over_signal(wanted: list[dict[str, Array]], got: list[dict[str, Array]]) -> float:
    """Power of the error over that of the wanted values, averaged over the outputs."""
    shares = []
    for name in wanted[0]:
        signal = sum(float(np.sum(w[name].astype(np.float64) ** 2)) for w in wanted)
        error = sum(
            float(np.sum((g[name].astype(np.float64) - w[name]) ** 2))
            for w, g in zip(wanted, got, strict=True)
        )
        shares.append(error / max(signal, LEAST_SIGNAL))
    worst = float(np.mean(shares))
    return worst if math.isfinite(worst) else 1e30
