"""report.html: one file without a network, for a browser, a phone, and a dark room."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from infer_tool.report.charts import pareto, percentiles, waterfall
from infer_tool.report.templates import environment
from infer_tool.units import show_bytes

if TYPE_CHECKING:
    from infer_tool.report.model import Layer, Report

MOST_LAYERS = 400
LAYER_BARS = (("bytes", "weights"), ("macs", "MACs"), ("ms", "ms"), ("max_rel", "error"))


def to_html(report: Report) -> str:
    """The whole report; the same report gives the same text."""
    from markupsafe import Markup

    charts = {
        "waterfall": waterfall(report.stages),
        "percentiles": percentiles(report.latency),
        "pareto": pareto(report.candidates),
    }
    return environment(html=True).get_template("report.html.j2").render(
        r=report,
        tiles=_tiles(report),
        layers=_layers(report.layers),
        left_out=max(len(report.layers) - MOST_LAYERS, 0),
        charts={name: Markup(svg) for name, svg in charts.items()},  # noqa: S704 - made here
        name=lambda path: PurePath(path).name,
    )  # fmt: skip


def _tiles(report: Report) -> list[dict[str, Any]]:
    """Size, accuracy and latency: before, after, and the bar lengths."""
    tiles = []
    source, result = report.source, report.artifact
    if source and result:
        tiles.append(_tile("Size", source.bytes, result.bytes, show_bytes))
    a = report.accuracy
    if a and a.reference is not None and a.candidate is not None:
        tiles.append(_tile(f"Accuracy, {a.metric}", a.reference, a.candidate, "{:.4f}".format))
    elif a:
        tiles.append({"title": "Fidelity", "value": f"{a.sqnr_db:.1f} dB", "note": "SQNR"})
    if report.command == "quantize" and len(report.latency) > 1:
        before, after = report.latency[:2]
        tile = _tile(f"Latency, {after.engine}", before.p50_ms, after.p50_ms, "{:.3f} ms".format)
        tiles.append(tile)
    if report.coverage:
        share = f"{100 * report.coverage.macs_fraction:.1f} %"
        tiles.append({"title": "Quantised", "value": share, "note": "of the multiply-accumulates"})
    return tiles


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


def _layers(layers: list[Layer]) -> dict[str, Any]:
    """Columns that were measured, and rows with the lengths of their bars, in percent."""
    shown = [(key, title) for key, title in LAYER_BARS
             if any(getattr(layer, key) is not None for layer in layers)]  # fmt: skip
    most = {k: max((getattr(x, k) or 0 for x in layers), default=0) or 1 for k, _ in shown}
    first = shown[-1][0] if shown else "bytes"
    kept = sorted(layers, key=lambda x: -(getattr(x, first) or 0))[:MOST_LAYERS]
    keep = {id(x) for x in kept}
    rows = [
        {"layer": x, "cells": [_cell(k, getattr(x, k), most[k]) for k, _ in shown]}
        for x in layers
        if id(x) in keep
    ]
    return {"titles": [title for _, title in shown], "rows": rows}


def _cell(key: str, value: float | None, most: float) -> dict[str, Any]:
    if value is None:
        return {"sort": -1, "text": "-", "width": 0}
    shown = {"bytes": lambda: show_bytes(int(value)), "macs": lambda: f"{value:,}"}
    text = shown.get(key, lambda: f"{value:.3g}")()
    return {"sort": value, "text": text, "width": round(100 * value / most, 1)}
