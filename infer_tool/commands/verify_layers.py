"""`verify --layers` and `--bisect`: tables of what each layer costs, and the command that helps."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.attribution import (
    Ratio,
    common_values,
    is_plain,
    rank_layers,
    without_layer,
)
from infer_tool.engines import open_engine
from infer_tool.layers import layers_of
from infer_tool.ledger import stage
from infer_tool.steps import pick_engine

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.attribution import Layer
    from infer_tool.config import Verify
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

OPTIONS_KEY = "infertool.quantize"  # the options that made the candidate
MOST_TRIED = 12  # layers that --bisect leaves out, one at a time, the noisiest first


def add_layers(
    report: Report,
    ui: Terminal,
    config: Verify,
    source: ir.Model,
    candidate: ir.Model,
    feeds: list[dict[str, Any]],
) -> None:
    """Add the tables that were asked for to the report.

    Raises:
        UsageError: the models have no values in common.

    """
    with ui.step("measure layers"), stage(report, "layers"):
        layers = rank_layers(source, candidate, feeds)
    if not layers:
        raise UsageError(
            "--layers: the models compute no values of the same name; compare the result with the "
            "model that it was made from"
        )
    report.layers = layers_of(candidate, layers)
    if config.layers:
        report.details["Layers, the noisiest by itself first"] = {
            "columns": ["layer", "op", "value", "own SQNR", "accumulated SQNR"],
            "rows": [[x.node, x.op, x.value, _db(x.own.db), _db(x.accumulated.db)] for x in layers],
        }
    if config.bisect:
        _bisect(report, ui, config, source, candidate, feeds, layers)


def _bisect(
    report: Report,
    ui: Terminal,
    config: Verify,
    source: ir.Model,
    candidate: ir.Model,
    feeds: list[dict[str, Any]],
    layers: list[Layer],
) -> None:
    """Compute one layer at a time as the source does and look at the outputs."""
    engine = pick_engine(config.engine)
    reference = open_engine(engine, source)
    wanted = [reference.run(feed) for feed in feeds]
    names = common_values(source, candidate)
    noisy = [x for x in layers if x.own.db < float("inf") and is_plain(source, x, names)]
    tried = noisy[:MOST_TRIED]
    with ui.step("leave layers out", len(tried)) as advance, stage(report, "bisect") as line:
        line.options = {"engine": engine, "tried": len(tried)}
        before = _output_db(engine, candidate, feeds, wanted)
        found = []
        for layer in tried:
            hybrid = without_layer(source, candidate, layer, names)
            found.append((layer, _output_db(engine, hybrid, feeds, wanted)))
            advance(1)
    found.sort(key=lambda pair: -pair[1])
    report.details["Layers left out, one at a time"] = {
        "columns": ["layer", "op", "SQNR of the outputs", "gain"],
        "rows": [[x.node, x.op, _db(db), f"{db - before:+.2f} dB"] for x, db in found],
    }
    if found and found[0][1] > before:
        report.advice.append(_command(config, candidate, found[0][0]))


def _output_db(
    engine: str, model: ir.Model, feeds: list[dict[str, Any]], wanted: list[dict[str, Any]]
) -> float:
    opened, ratio = open_engine(engine, model), Ratio()
    for feed, expected in zip(feeds, wanted, strict=True):
        got = opened.run(feed)
        for name, value in expected.items():
            ratio.add(value, got[name])
    return ratio.db


def _command(config: Verify, candidate: ir.Model, layer: Layer) -> str:
    """The line that makes the candidate again without this layer."""
    words = ["infertool", "quantize", config.reference]
    words += shlex.split(candidate.metadata_props.get(OPTIONS_KEY, ""))
    if config.data is not None:
        words += ["--data", config.data]
    if config.preprocess is not None:
        words += ["--preprocess", config.preprocess]
    return shlex.join([*words, "--exclude", layer.node, "-o", config.candidate, "--force"])


def _db(value: float) -> str:
    return "exact" if value == float("inf") else f"{value:.1f} dB"
