"""`infertool bench`: latency of models side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.engines import open_engine
from infer_tool.gates import raise_missed
from infer_tool.ledger import new_report, stage
from infer_tool.report.model import Gate
from infer_tool.report.write import check_report_folder
from infer_tool.steps import installed_engines, load_model
from infer_tool.timing import Contestant, measure
from infer_tool.units import parse_milliseconds, parse_shape
from passes.feeds import random_feeds

if TYPE_CHECKING:
    from infer_tool.config import Bench
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal


def run(config: Bench, ui: Terminal) -> Report:
    """Time every model on every engine, in turns.

    Raises:
        UsageError: a path or an option is wrong.
        ModelError: a model cannot be read or run.
        GateError: --max-latency was missed.

    """
    check_report_folder(config.report)
    limit = parse_milliseconds(config.max_latency, "max-latency") if config.max_latency else None
    report = new_report("bench", config)
    for name in config.engine or tuple(installed_engines()):
        contestants = [_contestant(config, ui, report, name, model) for model in config.models]
        with (
            ui.step(f"bench on {name}", config.warmup + config.runs) as advance,
            stage(report, f"bench:{name}"),
        ):
            report.latency += measure(contestants, config.runs, config.warmup, advance)
    report.source = None
    if limit is not None:
        for row in report.latency:
            name = f"max-latency {row.model} {row.engine}"
            report.gates.append(Gate(name, limit, row.p50_ms, row.p50_ms <= limit))
        raise_missed(report)
    return report


def _contestant(
    config: Bench, ui: Terminal, report: Report, engine_name: str, path: str
) -> Contestant:
    imported = load_model(report, ui, path)
    model = imported.path if imported.kind == "onnx" and imported.path else imported.model
    engine = open_engine(engine_name, model, threads=config.threads)
    given = dict(parse_shape(text) for text in config.shape)
    known = {i.name for i in engine.inputs}
    sizes = {
        i.name: (
            i.shape[0] if isinstance(i.shape[0], int) else config.batch,
            *(d if isinstance(d, int) else 1 for d in i.shape[1:]),
        )
        for i in engine.inputs
        if i.shape
    }
    sizes |= {name: shape for name, shape in given.items() if name in known}
    feeds = random_feeds(engine.inputs, seed=config.seed, shapes=sizes)
    first = next(iter(feeds.values()), None)
    batch = first.shape[0] if first is not None and first.ndim else 1
    return Contestant(path, engine, config.threads, batch, feeds)
