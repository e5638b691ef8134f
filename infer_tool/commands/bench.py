"""`infertool bench`: latency of models side by side."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from infer_runtime.domains import domain_of
from infer_runtime.errors import UsageError
from infer_tool.baseline import baseline_gate, read_baseline, write_baseline, yardstick
from infer_tool.bench_matrix import Cell, cells, sweep
from infer_tool.engines import engine_kinds, engines_for, file_kind, open_engine, warm_up
from infer_tool.engines.profile import PROFILE_RUNS, node_times
from infer_tool.gates import raise_missed
from infer_tool.layers import layers_of
from infer_tool.ledger import new_report, stage
from infer_tool.peak_memory import peak_of
from infer_tool.report.model import Gate
from infer_tool.report.write import check_report_folder
from infer_tool.steps import load_model
from infer_tool.timing import Contestant, latencies, measure, ratio_of, take_turns
from infer_tool.units import parse_milliseconds, parse_shape, parse_share
from passes.feeds import random_feeds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx_ir as ir

    from infer_tool.config import Bench
    from infer_tool.engines import Engine
    from infer_tool.report.model import Latency, Ratio, Report
    from infer_tool.ui import Terminal


@dataclass(frozen=True)
class Limits:
    """The parsed options, before any work."""

    latency: float | None
    regress: float | None
    sweep: float | None


@dataclass
class Subject:
    """A model of the command line, imported when an engine needs it."""

    path: str
    kind: str
    model: ir.Model | None = None


def run(config: Bench, ui: Terminal) -> Report:
    """Time every model on every engine, in turns.

    Raises:
        UsageError: a path or an option is wrong.
        ModelError: a model cannot be read or run.
        GateError: --max-latency or --max-latency-regress was missed.

    """
    check_report_folder(config.report)
    limits = _limits(config)
    subjects = [Subject(path, file_kind(path)) for path in config.models]
    report = new_report("bench", config)
    group = cells(config, _default_engines(subjects))
    stored = {} if config.baseline is None or config.update_baseline else (
        read_baseline(config.baseline)
    )  # fmt: skip
    ratios: list[Ratio] = []
    for cell in group:
        ratios += _measure(config, ui, report, subjects, cell)
    if limits.sweep is not None:
        _sweep(config, ui, report, subjects, group, limits.sweep)
    report.source = None
    _judge(report, config, limits, stored, ratios)
    if config.update_baseline and config.baseline is not None:
        write_baseline(config.baseline, report.latency, ratios)
    return report


def _limits(config: Bench) -> Limits:
    regress = config.max_latency_regress
    if regress is not None and config.baseline is None and len(config.models) == 1:
        raise UsageError("--max-latency-regress: nothing to compare with; give --baseline FILE")
    if config.update_baseline and config.baseline is None:
        raise UsageError("--update-baseline: give the file with --baseline FILE")
    return Limits(
        parse_milliseconds(config.max_latency, "max-latency") if config.max_latency else None,
        parse_share(regress, "max-latency-regress") if regress is not None else None,
        parse_milliseconds(config.best_batch, "best-batch") if config.best_batch else None,
    )


def _default_engines(subjects: list[Subject]) -> list[str]:
    """Those of every model's own kind; ONNX engines where a kind has none."""
    found: dict[str, None] = {}
    for subject in subjects:
        found |= dict.fromkeys(engines_for(subject.kind) or engines_for("onnx"))
    return list(found)


def _measure(
    config: Bench, ui: Terminal, report: Report, subjects: list[Subject], cell: Cell
) -> list[Ratio]:
    """Append the rows of a cell; returns their ratios to the yardstick."""
    fitting = [s for s in subjects if _fits(s, cell.engine)]
    if not fitting:
        raise UsageError(f"--engine {cell.engine}: runs none of {', '.join(config.models)}")
    warm_up(cell.engine)
    contestants = [_contestant(config, ui, report, cell, s) for s in fitting]
    calls: list[Callable[[], Any]] = [partial(c.engine.run, c.feeds) for c in contestants]
    if config.baseline is not None:
        calls.append(yardstick())
    label = f"bench:{cell.engine}"
    with (
        ui.step(f"bench on {cell.engine}", config.warmup + config.runs) as advance,
        stage(report, label, threads=cell.threads, batch=cell.batch),
    ):
        seconds = take_turns(calls, config.runs, config.warmup, advance)
    rows = latencies(contestants, seconds[: len(contestants)])
    if config.memory:
        rows = [_with_memory(r, c, s) for r, c, s in zip(rows, contestants, fitting, strict=True)]
    report.latency += rows
    if config.profile:
        for subject, contestant in zip(fitting, contestants, strict=True):
            _profile(report, cell, subject, contestant)
    if config.baseline is None:
        return []
    return [ratio_of(s, seconds[-1]) for s in seconds[:-1]]


def _fits(subject: Subject, engine: str) -> bool:
    """ONNX engines run whatever can be imported."""
    reads = engine_kinds()[engine].reads
    return reads in (subject.kind, "onnx") and not (reads == "onnx" and subject.kind == "tflite")


def _contestant(
    config: Bench, ui: Terminal, report: Report, cell: Cell, subject: Subject
) -> Contestant:
    target = _target(ui, report, subject, cell.engine)
    start = time.perf_counter()
    engine = open_engine(cell.engine, target, threads=cell.threads)
    load_ms = 1e3 * (time.perf_counter() - start)
    feeds = _feeds(config, engine, subject, cell.batch)
    first = next(iter(feeds.values()), None)
    batch = first.shape[0] if first is not None and first.ndim else 1
    return Contestant(subject.path, engine, cell.threads, batch, feeds, load_ms)


def _target(ui: Terminal, report: Report, subject: Subject, engine: str) -> str | ir.Model:
    """The file where the engine reads it, else what was imported from it."""
    if engine_kinds()[engine].reads == subject.kind != "onnx":
        return subject.path
    if subject.model is None:
        subject.model = load_model(report, ui, subject.path).model
    return subject.path if subject.kind == "onnx" else subject.model


def _feeds(config: Bench, engine: Engine, subject: Subject, batch: int) -> dict[str, Any]:
    given = dict(parse_shape(text) for text in config.shape)
    known = {i.name for i in engine.inputs}
    sizes = {
        i.name: (
            i.shape[0] if isinstance(i.shape[0], int) else batch,
            *(d if isinstance(d, int) else 1 for d in i.shape[1:]),
        )
        for i in engine.inputs
        if i.shape
    }
    sizes |= {name: shape for name, shape in given.items() if name in known}
    inputs = () if subject.model is None else subject.model.graph.inputs
    domains = {value.name: domain_of(value) for value in inputs}
    infos = [replace(i, domain=domains.get(i.name)) for i in engine.inputs]
    return random_feeds(infos, config.seed, sizes)


def _with_memory(row: Latency, contestant: Contestant, subject: Subject) -> Latency:
    if subject.kind != engine_kinds()[row.engine].reads:
        raise UsageError(f"--memory: {subject.path} is no file of {row.engine}; convert it first")
    peak = peak_of(row.engine, subject.path, row.threads, contestant.feeds)
    return replace(row, peak_memory_bytes=peak)


def _profile(report: Report, cell: Cell, subject: Subject, contestant: Contestant) -> None:
    target: str | Path | ir.Model = subject.path
    if subject.kind != "onnx" and subject.model is not None:
        target = subject.model
    rows = node_times(cell.engine, target, cell.threads, contestant.feeds, PROFILE_RUNS)
    total = sum(ms for _, _, ms in rows) or 1.0
    if not report.layers and subject.model is not None:  # of the first model, on the first engine
        sizes = {name: value.shape for name, value in contestant.feeds.items()}
        report.layers = layers_of(subject.model, (), rows, cell.engine, sizes)
    title = f"Nodes of {subject.path} on {cell.engine}, threads {cell.threads}, batch {cell.batch}"
    report.details[title] = {
        "columns": ["node", "op", "ms", "share"],
        "rows": [[n, op, round(ms, 6), f"{100 * ms / total:.1f} %"] for n, op, ms in rows],
    }


def _sweep(
    config: Bench,
    ui: Terminal,
    report: Report,
    subjects: list[Subject],
    group: list[Cell],
    limit: float,
) -> None:
    """For each model, engine and number of threads: the largest batch below the limit."""
    rows: list[list[Any]] = []
    for engine, threads in dict.fromkeys((c.engine, c.threads) for c in group):
        for subject in (s for s in subjects if _fits(s, engine)):
            time_batch = partial(_at_batch, config, ui, report, subject, engine, threads)
            with stage(report, f"sweep:{engine}", limit_ms=limit):
                found = sweep(time_batch, limit)
            below = [row for row in found if row.p90_ms <= limit]
            best = max(below, key=lambda row: row.throughput or 0.0, default=None)
            rows += [_batch_row(row, limit, is_best=row is best) for row in found]
            least = min((row.p90_ms for row in found), default=math.nan)
            gate = f"best-batch {subject.path} {engine}"
            report.gates.append(Gate(gate, limit, least, best is not None))
    columns = ["model", "engine", "threads", "batch", "p90 ms", "samples/s", "verdict"]
    report.details["Batches"] = {"columns": columns, "rows": rows}


def _at_batch(
    config: Bench,
    ui: Terminal,
    report: Report,
    subject: Subject,
    engine: str,
    threads: int,
    batch: int,
) -> Latency | None:
    contestant = _contestant(config, ui, report, Cell(engine, threads, batch), subject)
    if contestant.batch != batch:
        return None  # the model fixes its batch
    return measure([contestant], config.runs, config.warmup)[0]


def _batch_row(row: Latency, limit: float, *, is_best: bool) -> list[Any]:
    verdict = "best" if is_best else "" if row.p90_ms <= limit else "over the limit"
    per_second = round(row.throughput or 0.0, 1)
    return [
        row.model, row.engine, row.threads, row.batch, round(row.p90_ms, 4), per_second, verdict
    ]  # fmt: skip


def _judge(
    report: Report,
    config: Bench,
    limits: Limits,
    stored: dict[str, dict[str, float]],
    ratios: list[Ratio],
) -> None:
    for row in report.latency if limits.latency is not None else ():
        assert limits.latency is not None
        name = f"max-latency {row.model} {row.engine}"
        report.gates.append(Gate(name, limits.latency, row.p50_ms, row.p50_ms <= limits.latency))
    if limits.regress is not None and config.baseline is None:
        for row in report.latency:
            if row.ratio is not None:
                change = row.ratio.low - 1
                name = f"max-latency-regress {row.model} {row.engine}"
                report.gates.append(Gate(name, limits.regress, change, change <= limits.regress))
    elif limits.regress is not None and not config.update_baseline:
        for row, ratio in zip(report.latency, ratios, strict=True):
            report.gates.append(baseline_gate(row, ratio, stored, limits.regress))
    raise_missed(report)
