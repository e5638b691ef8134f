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

WIDTH = 360  # a phone's, so that letters stay readable there
MANY_DECADES = 1.7
LINES = 6  # in one plot; more cannot be told apart
SMALL = 0.01  # of the largest bar; smaller steps share one
SVG = "http://www.w3.org/2000/svg"

Step = tuple[str, int, int]  # name, before, after


def waterfall(stages: Sequence[Stage], measure: str) -> str:
    """The source, what each stage saved or added, and the result; empty when nothing changed.

    Args:
        stages: the ledger.
        measure: "bytes" (of the weights) or "nodes".

    """
    import pygal

    pairs = [(s.name, pair) for s in stages if (pair := getattr(s, measure))]
    changed = [(name, *pair) for name, pair in pairs if pair[0] != pair[1]]
    if not changed:
        return ""
    most = max(max(before, after) for _, before, after in changed)
    first, last = pairs[0][1][0], pairs[-1][1][1]
    steps = [("source", 0, first), *_few(changed, SMALL * most), ("result", 0, last)]
    steps.reverse()  # the first one stands on top
    chart = _chart(
        pygal.HorizontalStackedBar, f"waterfall-{measure}", 50 + 24 * len(steps), show_legend=False
    )
    chart.y_labels = _round_marks(most)
    chart.x_labels = [name for name, _, _ in steps]
    ends = ("source", "result")
    chart.add("", [0 if name in ends else min(b, a) for name, b, a in steps])
    chart.add("size", [a if name in ends else 0 for name, _, a in steps])
    chart.add("saved", [max(b - a, 0) for _, b, a in steps])
    chart.add("grown", [0 if name in ends else max(a - b, 0) for name, b, a in steps])
    chart.value_formatter = lambda count: (
        _short_bytes(count) if measure == "bytes" else f"{count:,.0f}"
    )
    return _svg(chart)


def _short_bytes(count: float) -> str:
    return show_bytes(int(count)).replace(".00 ", " ")


def _few(steps: Sequence[Step], small: float) -> list[Step]:
    """Steps that are large enough to see; neighbours that are not become one."""
    found: list[Step] = []
    merged = 0
    for name, before, after in steps:
        if abs(after - before) >= small:
            found.append((name, before, after))
            merged = 0
        elif merged:
            merged += 1
            found[-1] = (f"{merged} small steps", found[-1][1], after)
        else:
            merged = 1
            found.append((name, before, after))
    return found


def percentiles(rows: Sequence[Latency]) -> str:
    """Milliseconds over the share of runs that took less, on a logarithmic axis."""
    import pygal

    drawn = [row for row in rows if row.quantiles_ms][:LINES]
    if not drawn:
        return ""
    chart = _chart(pygal.XY, "percentiles", 244 + 24 * len(drawn), show_dots=False)
    chart.x_title, chart.y_title = "share of runs, %", "ms"
    chart.x_labels = [0, 25, 50, 75, 100]
    marks = _decades([ms for row in drawn for ms in row.quantiles_ms])
    foot = marks[0]  # where zero is, the library draws an axis
    chart.y_labels = [mark - foot for mark in marks]
    chart.value_formatter = lambda power: f"{float(f'{10 ** (power + foot):.2g}'):g}"
    chart.x_value_formatter = lambda share: f"{share:.0f}"
    for row in drawn:
        last = len(row.quantiles_ms) - 1
        label = ", ".join(_what_differs(row, drawn))
        points = [(100 * n / last, math.log10(ms) - foot) for n, ms in enumerate(row.quantiles_ms)]
        chart.add(label, points, stroke_style={"width": 1.5})
    return _svg(chart)


def _what_differs(row: Latency, rows: Sequence[Latency]) -> list[str]:
    """The file, and of the rest what is not the same in all rows."""
    rest = {
        "engine": row.engine,
        "threads": f"{row.threads} threads",
        "batch": f"batch {row.batch}",
    }
    differs = [text for key, text in rest.items() if len({getattr(r, key) for r in rows}) > 1]
    return [PurePath(row.model).name, *differs]


def _decades(values: Sequence[float]) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten around the values."""
    low, high = math.log10(min(values)), math.log10(max(values))
    few = (1,) if high - low > MANY_DECADES else (1, 2, 5)
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = [math.log10(digit) + power for power in powers for digit in few]
    first = max((i for i, mark in enumerate(every) if mark <= low), default=0)
    last = min((i for i, mark in enumerate(every) if mark >= high), default=len(every) - 1)
    return every[first : last + 1]


def _round_marks(most: float) -> list[float]:
    """Zero and two to four multiples of a round number, the last one at least `most`."""
    power = 10.0 ** math.floor(math.log10(most or 1))
    step = next(step for n in (0.25, 0.5, 1, 2, 2.5) if (step := n * power) * 4 >= most)
    return [n * step for n in range(math.ceil(most / step) + 1)]


def pareto(candidates: Sequence[Candidate]) -> str:
    """Loss over size of what a search tried: the front, the rest, and what was chosen."""
    import pygal

    known = [c for c in candidates if c.drop is not None]
    if not known:
        return ""
    front = front_of(known)
    chart = _chart(pygal.XY, "pareto", 320, stroke=False, dots_size=4)
    chart.x_title, chart.y_title = "size", "drop"
    chart.x_labels = _round_marks(max(c.bytes for c in known))
    chart.x_value_formatter = _short_bytes
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
        margin_right=24, disable_xml_declaration=True, legend_at_bottom=True,
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
