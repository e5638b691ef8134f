"""Plots of the report as inline SVG: pygal draws, the page's style sheet colours."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from infer_tool.units import show_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_tool.report.model import Candidate, Latency, Stage

WIDTH = 420  # small, so that its letters stay readable where a phone shrinks it
MANY_DECADES = 1.7
LINES = 6  # in one plot; more cannot be told apart
SVG = "http://www.w3.org/2000/svg"


def waterfall(stages: Sequence[Stage]) -> str:
    """Bytes of the weights after each stage that changed them; empty when none did."""
    import pygal

    steps = [(s.name, *s.bytes) for s in stages if s.bytes and s.bytes[0] != s.bytes[1]]
    if not steps:
        return ""
    steps.reverse()  # the first stage stands on top
    chart = _chart(pygal.HorizontalStackedBar, "waterfall", 110 + 26 * len(steps))
    chart.y_labels = _steps(max(max(before, after) for _, before, after in steps))
    chart.x_labels = [name for name, _, _ in steps]
    chart.add("kept", [min(before, after) for _, before, after in steps])
    chart.add("saved", [max(before - after, 0) for _, before, after in steps])
    chart.add("grown", [max(after - before, 0) for _, before, after in steps])
    chart.value_formatter = lambda count: show_bytes(int(count))
    return _svg(chart)


def percentiles(rows: Sequence[Latency]) -> str:
    """Milliseconds over the share of runs that took less, on a logarithmic axis."""
    import pygal

    drawn = [row for row in rows if row.quantiles_ms][:LINES]
    if not drawn:
        return ""
    chart = _chart(pygal.XY, "percentiles", 300 + 20 * len(drawn), show_dots=False)
    chart.x_title, chart.y_title = "share of runs, %", "ms"
    chart.x_labels = [0, 25, 50, 75, 100]
    chart.y_labels = _decades([ms for row in drawn for ms in row.quantiles_ms])
    chart.value_formatter = lambda power: f"{float(f'{10**power:.2g}'):g}"
    chart.x_value_formatter = lambda share: f"{share:.0f}"
    for row in drawn:
        last = len(row.quantiles_ms) - 1
        label = f"{PurePath(row.model).name}, {row.engine}, batch {row.batch}"
        points = [(100 * n / last, math.log10(ms)) for n, ms in enumerate(row.quantiles_ms)]
        chart.add(label, points, stroke_style={"width": 2})
    return _svg(chart)


def _decades(values: Sequence[float]) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten around the values."""
    low, high = math.log10(min(values)), math.log10(max(values))
    few = (1,) if high - low > MANY_DECADES else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = [math.log10(digit) + power for power in powers for digit in few]
    first = max((i for i, mark in enumerate(every) if mark <= low), default=0)
    last = min((i for i, mark in enumerate(every) if mark >= high), default=len(every) - 1)
    return every[first : last + 1]


def _steps(most: int) -> list[float]:
    """Four marks from nothing to `most`."""
    return [most * part / 3 for part in range(4)]


def pareto(candidates: Sequence[Candidate]) -> str:
    """Loss over size of what a search tried: the front, the rest, and what was chosen."""
    import pygal

    known = [c for c in candidates if c.drop is not None]
    if not known:
        return ""
    front = front_of(known)
    chart = _chart(pygal.XY, "pareto", 360, stroke=False, dots_size=4)
    chart.x_title, chart.y_title = "size", "drop"
    chart.x_labels = _steps(max(c.bytes for c in known))
    chart.x_value_formatter = lambda count: show_bytes(int(count))
    chart.add("front", [_point(c) for c in front], stroke=True)
    chart.add("others", [_point(c) for c in known if c not in front and not c.chosen])
    chart.add("chosen", [_point(c) for c in known if c.chosen], dots_size=7)
    return _svg(chart)


def front_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one beats in both size and loss, the smallest first."""
    front: list[Candidate] = []
    for point in sorted(candidates, key=lambda c: (c.bytes, _loss(c))):
        if not front or _loss(point) < _loss(front[-1]):
            front.append(point)
    return front


def _loss(point: Candidate) -> float:
    assert point.drop is not None
    return point.drop


def _point(c: Candidate) -> dict[str, Any]:
    return {"value": (c.bytes, c.drop), "label": c.label}


def _chart(kind: Any, name: str, height: int, **options: Any) -> Any:
    from pygal.style import Style

    style = Style(
        background="transparent", plot_background="transparent", foreground="var(--text)",
        foreground_strong="var(--text)", foreground_subtle="var(--soft)",
        guide_stroke_color="var(--line)", major_guide_stroke_color="var(--line)",
        colors=tuple(f"var(--plot{n})" for n in range(1, LINES + 1)), font_family="inherit",
        opacity=".9", opacity_hover="1", transition="0s", label_font_size=13,
        major_label_font_size=13, legend_font_size=13, title_font_size=14,
    )  # fmt: skip
    chart = kind(
        style=style, js=[], width=WIDTH, height=height, explicit_size=False, margin=8,
        margin_right=30, disable_xml_declaration=True, legend_at_bottom=True,
        legend_at_bottom_columns=1, truncate_label=22, truncate_legend=50, **options,
    )  # fmt: skip
    chart.uuid = name  # a random one would make every report differ
    return chart


def _svg(chart: Any) -> str:
    """Without the library's scripts, links and date: only what is drawn."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(chart.render())  # noqa: S314 - made a line above
    for parent in root.iter():
        for child in list(parent):
            if child.tag == f"{{{SVG}}}script":
                parent.remove(child)
    root.set("role", "img")
    return ET.tostring(root, encoding="unicode")
