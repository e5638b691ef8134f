"""report.html: one file without a network, for a browser, a phone, and a dark room."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from infer_tool.report.charts import pareto, percentiles, waterfall
from infer_tool.report.templates import environment
from infer_tool.report.terminal import speed_up
from infer_tool.units import show_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from infer_tool.report.model import Latency, Layer, Report, Stage

MOST_LAYERS = 400
SAID = 4  # reasons beside the verdict
# Columns of the table of layers: a field, its title, and how it is written.
LAYER_BARS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("bytes", "weights", lambda value: show_bytes(int(value)) if value else ""),
    ("macs", "MACs", lambda value: f"{value:,}" if value else ""),
    ("ms", "ms", "{:.3g}".format),
    ("own_noise", "own error", lambda value: f"{100 * value:.3g} %"),
    ("noise", "gathered error", lambda value: f"{100 * value:.3g} %"),
)


def to_html(report: Report) -> str:
    """The whole report; the same report gives the same text."""
    from markupsafe import Markup

    charts = {
        "bytes": waterfall(report.stages, "bytes"),
        "nodes": waterfall(report.stages, "nodes"),
        "percentiles": percentiles(report.latency),
        "pareto": pareto(report.candidates),
    }
    return environment(html=True).get_template("report.html.j2").render(
        r=report,
        summary=_summary(report),
        tiles=_tiles(report),
        stages=_stages(report.stages),
        latency=_latency_table(report.latency),
        layers=_layers(report.layers),
        left_out=max(len(report.layers) - MOST_LAYERS, 0),
        charts={name: Markup(svg) for name, svg in charts.items()},  # noqa: S704 - made here
        name=lambda path: PurePath(path).name,
    )  # fmt: skip


def _summary(report: Report) -> list[str]:
    """The verdict's reasons in a few words each."""
    said = [
        f"{g.name} is {g.value:,.6g}, limit {g.limit:,.6g}" for g in report.gates if not g.passed
    ]
    if report.gates and not said:
        said.append(_all_kept(len(report.gates), "gate", "kept"))
    if report.outputs:
        bad = [f"{o.output} on {o.engine}" for o in report.outputs if not o.passed]
        kept = _all_kept(len(report.outputs), "output", "within tolerance")
        said.append(f"outside the tolerance: {', '.join(bad)}" if bad else kept)
    source, result = report.source, report.artifact
    if source and result and source.bytes and report.command != "verify":
        change = 100 * (result.bytes / source.bytes - 1)
        said.append(f"{abs(change):.1f} % {'smaller' if change < 0 else 'larger'}")
    said += [
        f"{PurePath(row.model).name} runs at {1 / row.ratio.median:.2f}x the speed"
        for row in report.latency
        if row.ratio is not None
    ]
    return said[:SAID]


def _all_kept(count: int, what: str, how: str) -> str:
    return f"{what} {how}" if count == 1 else f"all {count} {what}s {how}"


def _tiles(report: Report) -> list[dict[str, Any]]:
    """Size, accuracy and latency: before, after, and the bar lengths."""
    return [*_size(report), *_accuracy(report), *_outputs(report), *_latency(report)]


def _size(report: Report) -> Iterator[dict[str, Any]]:
    source, result = report.source, report.artifact
    if source and result and report.command != "verify":
        yield _tile("Size", source.bytes, result.bytes, show_bytes)


def _accuracy(report: Report) -> Iterator[dict[str, Any]]:
    a = report.accuracy
    if a and a.reference is not None and a.candidate is not None:
        yield _tile(f"Accuracy, {a.metric}", a.reference, a.candidate, "{:.4f}".format)
    elif a:
        yield {"title": "Fidelity", "value": f"{a.sqnr_db:.1f} dB", "note": "SQNR"}
    if report.coverage:
        share = f"{100 * report.coverage.macs_fraction:.1f} %"
        yield {"title": "Quantised", "value": share, "note": "of the multiply-accumulates"}


def _outputs(report: Report) -> Iterator[dict[str, Any]]:
    if report.outputs:
        worst = max(report.outputs, key=lambda o: o.max_rel)
        yield {
            "title": "Largest error",
            "value": f"{worst.max_rel:.3g}",
            "note": f"of the largest value; {worst.output} on {worst.engine}",
        }
        least = min(report.outputs, key=lambda o: o.sqnr_db)
        note = f"SQNR; {least.output} on {least.engine}"
        yield {"title": "Signal to noise", "value": f"{least.sqnr_db:.1f} dB", "note": note}


def _latency(report: Report) -> Iterator[dict[str, Any]]:
    """Of each row that was compared with one before; of a single row its median."""
    show = "{:.3g} ms".format
    if len(report.latency) == 1:
        row = report.latency[0]
        yield {"title": f"Latency, {row.engine}", "value": show(row.p50_ms), "note": "median"}
    base = None
    for row in report.latency:
        if row.ratio is None:
            base = row
        elif base is not None:
            name = "" if report.command == "quantize" else f"{PurePath(row.model).name}, "
            yield _tile(f"Latency, {name}{row.engine}", base.p50_ms, row.p50_ms, show)


def _latency_table(rows: list[Latency]) -> dict[str, Any]:
    """Without the columns that nothing was measured for."""
    columns: dict[str, Callable[[Latency], str | None]] = {
        "engine": lambda r: r.engine,
        "threads": lambda r: str(r.threads or "auto"),
        "batch": lambda r: str(r.batch),
        "p50 ms": lambda r: _digits(r.p50_ms),
        "p90": lambda r: _digits(r.p90_ms),
        "p95": lambda r: _digits(r.p95_ms),
        "p99": lambda r: _digits(r.p99_ms),
        "max": lambda r: _digits(r.max_ms),
        "samples/s": lambda r: None if r.throughput is None else f"{r.throughput:,.0f}",
        "load ms": lambda r: _digits(r.load_ms),
        "peak memory": lambda r: show_bytes(r.peak_memory_bytes) if r.peak_memory_bytes else None,
        "speed-up": lambda r: speed_up(r.ratio) if r.ratio else None,
    }
    shown = {title: of for title, of in columns.items() if any(of(r) is not None for r in rows)}
    cells = [(r, [of(r) or "-" for of in shown.values()]) for r in rows]
    return {"titles": list(shown), "rows": cells}


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _tile(title: str, before: float, after: float, show: Any) -> dict[str, Any]:
    most = max(abs(before), abs(after)) or 1
    change = f"{100 * (after / before - 1):+.1f} %" if before else ""
    return {
        "title": title,
        "value": show(after),
        "note": change,
        "bars": [
            ("before", show(before), 100 * abs(before) / most),
            ("after", show(after), 100 * abs(after) / most),
        ],
    }


def _stages(stages: list[Stage]) -> list[dict[str, Any]]:
    """The ledger without passes that changed nothing."""
    shown = [s for s in stages if s.options.get("changes") != 0]
    most = max((s.seconds for s in shown), default=0) or 1
    return [
        {
            "stage": s,
            "seconds": _cell(s.seconds, most, "{:.2f}".format),
            "nodes": _change(s.nodes, str),
            "bytes": _change(s.bytes, show_bytes),
        }
        for s in shown
    ]


def _change(pair: tuple[int, int] | None, show: Callable[[int], str]) -> dict[str, Any]:
    """Text, and what a click on the column sorts by."""
    if pair is None:
        return {"text": "-", "sort": 0, "same": True}
    before, after = pair
    text = show(after) if before == after else f"{show(before)} \u2192 {show(after)}"
    return {"text": text, "sort": after - before, "same": before == after}


def _layers(layers: list[Layer]) -> dict[str, Any]:
    """Columns that were measured, and rows with the lengths of their bars, in percent."""
    columns = [c for c in LAYER_BARS if any(getattr(x, c[0]) is not None for x in layers)]
    most = {key: max(map(_finite(key), layers)) or 1 for key, _, _ in columns}
    last = _finite(columns[-1][0] if columns else "bytes")
    keep = {id(x) for x in sorted(layers, key=lambda x: -last(x))[:MOST_LAYERS]}
    rows = [
        {"layer": x, "cells": [_cell(getattr(x, k), most[k], show) for k, _, show in columns]}
        for x in layers
        if id(x) in keep
    ]
    return {"titles": [title for _, title, _ in columns], "rows": rows}


def _finite(key: str) -> Callable[[Layer], float]:
    def of(layer: Layer) -> float:
        value = getattr(layer, key)
        return value if value is not None and math.isfinite(value) else 0.0

    return of


def _cell(value: float | None, most: float, show: Callable[[float], str]) -> dict[str, Any]:
    if value is None:
        return {"sort": -1, "text": "-", "width": 0}
    if not math.isfinite(value):
        return {"sort": 1e300, "text": str(value), "width": 100}
    return {"sort": value, "text": show(value), "width": round(100 * value / most, 1)}
