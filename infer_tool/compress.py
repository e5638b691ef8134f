"""Steps that the commands share which train: import, write what was trained, measure it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import MismatchError
from infer_tool.emitters.onnx import save_onnx
from infer_tool.engines import open_engine
from infer_tool.evaluate import evaluate, source_and_result
from infer_tool.files import check_output
from infer_tool.gates import apply_gates, parse_limits
from infer_tool.ledger import new_report, stage
from infer_tool.report.write import check_report_folder
from infer_tool.steps import (
    check_file,
    describe_file,
    load_model,
    optimise,
    pick_engine,
    prove_import,
    source_feeds,
)
from infer_tool.training import Lesson, open_parts
from passes.config import OptimizeConfig
from quant.sparse import restore_dense

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from infer_tool.config import Compress
    from infer_tool.data import Dataset
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

    Array = np.ndarray[Any, Any]

TOLERANCE = 1e-4  # of engines against the trained module, relative to the largest output


@dataclass(frozen=True)
class Start:
    """A proven, optimised source, the lesson, and the samples to measure on."""

    report: Report
    source: ir.Model
    lesson: Lesson
    evaluation: Dataset


def start(command: str, config: Compress, ui: Terminal) -> Start:
    """Check everything that can be wrong before the work, import, optimise.

    Raises:
        UsageError: a path, an option or the data is wrong.
        ModelError: the model cannot be read.

    """
    check_output(config.output, config.force)
    check_report_folder(config.report)
    parse_limits(config)
    report = new_report(command, config)
    imported = load_model(report, ui, config.model, config)
    data, evaluation = open_parts(config, Session(imported.model).inputs)
    feeds = source_feeds(imported, config.seed, config.shape)
    passes = OptimizeConfig(seed=config.seed)
    prove_import(report, ui, imported, feeds, passes.tolerance)
    restore_dense(imported.model)
    source = optimise(report, ui, imported.model, passes, feeds)
    return Start(report, source, Lesson(config, source, data), evaluation)


def finish(
    begun: Start,
    ui: Terminal,
    config: Compress,
    model: ir.Model,
    trained: Callable[[Mapping[str, Array]], dict[str, Array]],
    judge: Callable[[Report], None] = lambda _: None,
    *,
    quantised: bool = False,
) -> None:
    """Write the model when every engine computes what was trained, and the limits are kept.

    Args:
        begun: what `start` gave.
        ui: progress.
        config: the options.
        model: to be written.
        trained: the outputs of the module that was trained.
        judge: adds gates of its own to what was measured.
        quantised: does the model round values while it runs? Engines may differ by single steps.

    Raises:
        MismatchError: an engine computes another thing, or NaN.
        GateError: a limit was missed.

    """
    report = begun.report
    feeds = [begun.lesson.feeds]

    def check(path: Path) -> None:
        wanted = [trained(feed) for feed in feeds]
        check_file(report, ui, path, feeds, wanted, TOLERANCE, quantised)
        report.artifact = describe_file(model, path, config.output)
        _measure(begun, ui, config, path)
        _warn(report)
        judge(report)
        apply_gates(report, parse_limits(config))

    save_onnx(model, config.output, check=check, force=config.force)


def _measure(begun: Start, ui: Terminal, config: Compress, path: Path) -> None:
    """Accuracy on samples that nothing was chosen by, latency side by side."""
    report, source, data = begun.report, begun.source, begun.evaluation
    name = pick_engine(config.engine)
    with stage(report, "evaluate", engine=name) as line:
        report.accuracy = evaluate(
            ui, open_engine(name, source), open_engine(name, path), data, config.metric
        )
        line.max_abs_error = report.accuracy.max_abs_error
        line.sqnr_db = report.accuracy.sqnr_db
    if not report.accuracy.max_abs_error < float("inf"):
        raise MismatchError("the result gives NaN or Inf where its source does not")
    if config.runs:
        with stage(report, "latency", threads=config.threads):
            report.latency = source_and_result(ui, config, name, source, path, data)


def _warn(report: Report) -> None:
    """A result that is larger or slower than its source is said so."""
    assert report.source is not None
    assert report.artifact is not None
    if report.artifact.bytes >= report.source.bytes:
        report.warnings.append(
            f"the result is larger than its source: {report.artifact.bytes} bytes, "
            f"source {report.source.bytes}"
        )
    if report.latency and report.latency[1].ratio and report.latency[1].ratio.low > 1:
        report.warnings.append(
            f"the result is slower than its source: {report.latency[1].p50_ms:.3f} ms, "
            f"source {report.latency[0].p50_ms:.3f} ms"
        )
