"""The answer of a search: the Pareto front, how close it came, and what stands in the way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from infer_tool.report.charts import front_of
from infer_tool.report.model import Candidate
from infer_tool.units import show_bytes
from quant.search.choice import describe
from quant.search.ladder import weight_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_tool.report.model import Report
    from quant.search.noise import Noise
    from quant.search.plan import Plan, Point

SHOWN = 5  # layers that stand in the way


def put_candidates(report: Report, plan: Plan, chosen: Point | None) -> None:
    """All points into the report's data, the front into its tables."""
    report.candidates = [_candidate(p, p is chosen) for p in plan.points]
    known = [c for c in report.candidates if c.drop is not None]
    shown = front_of(known) if known else report.candidates
    others = [c for c in report.candidates if c.chosen and c not in shown]
    rows = [
        [show_bytes(c.bytes), _number(c.drop, 4), f"{c.sqnr_db or 0:.1f} dB",
         _number(c.latency_ms, 3), c.label, "chosen" if c.chosen else ""]
        for c in (*shown, *others)
    ]  # fmt: skip
    columns = ["size", "drop", "SQNR", "ms", "layers", ""]
    title = f"Pareto front of {len(report.candidates)} measured"
    report.details[title] = {"columns": columns, "rows": rows}


def put_obstacles(report: Report, noise: Noise, point: Point) -> list[str]:
    """The layers that cost most noise at a point, into the tables; returns their names."""
    costs = {name: noise.of(name, choice) for name, choice in point.assignment.items()}
    total = sum(costs.values()) or 1.0
    sizes = {n: weight_bytes(noise.space.layers[n], c) for n, c in point.assignment.items()}
    worst = sorted(costs, key=lambda n: -costs[n])[:SHOWN]
    rows = [_row(noise, name, point, costs[name] / total, sizes[name]) for name in worst]
    columns = ["layer", "weight", "format", "bytes", "share of the noise"]
    report.details["In the way"] = {"columns": columns, "rows": rows}
    return [noise.space.layers[name].nodes[0] for name in worst]


def _row(noise: Noise, name: str, point: Point, share: float, size: float) -> list[Any]:
    node = noise.space.layers[name].nodes[0]
    shown = f"{100 * share:.0f} %"
    return [node, name, str(point.assignment[name]), show_bytes(int(size)), shown]


def _candidate(point: Point, chosen: bool) -> Candidate:
    formats = {n: str(c) for n, c in point.assignment.items()} if chosen else {}
    label = describe(point.assignment)
    drop = point.drop if point.drop is not None and math.isfinite(point.drop) else None
    return Candidate(label, point.bytes, drop, point.latency_ms, chosen, point.sqnr_db, formats)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def points_text(points: Sequence[tuple[str, Point | None]]) -> str:
    """`within max-drop the smallest is 2.1 MB`, for each question that has an answer."""
    return "; ".join(
        f"{question} {show_bytes(p.bytes)}, drop {_number(p.drop, 4)}, {p.sqnr_db:.1f} dB"
        for question, p in points
        if p is not None
    )
