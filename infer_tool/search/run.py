"""The search behind `--scheme auto`, from calibrated model to the decision that is written."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from infer_runtime.errors import GateError, LimitError, LimitIsUp, UsageError
from infer_tool.gates import parse_limits
from infer_tool.ledger import set_facts, stage
from infer_tool.limits import lift_time_limit
from infer_tool.report.model import Gate
from infer_tool.search.judge import EngineJudge
from infer_tool.search.state import open_state, search_key, state_path
from infer_tool.search.tables import points_text, put_candidates, put_obstacles
from passes.facts import facts
from quant.search.plan import Limits, Plan, Point, best_of, excess, nearest
from quant.search.space import explore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    import onnx_ir as ir

    from infer_tool.config import Quantize
    from infer_tool.data import Dataset
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.model import Quantized

    Feeds = Iterable[Mapping[str, np.ndarray]]


def search_limits(config: Quantize) -> Limits:
    """The budget.

    Raises:
        UsageError: there is none, a limit is no quantity, or latency has a limit and no runs.

    """
    given = parse_limits(config)
    if given.max_latency is not None and not config.runs:
        raise UsageError("--max-latency needs timed runs: --runs must be more than 0")
    limits = Limits(given.max_drop, given.min_sqnr, given.max_size, given.max_latency)
    if config.scheme == "auto" and limits == Limits():
        raise UsageError(
            "--scheme auto needs a budget: --max-drop, --min-sqnr, --max-size or --max-latency"
        )
    return limits


def search(
    report: Report,
    ui: Terminal,
    config: Quantize,
    source: ir.Model,
    feeds: Feeds,
    parts: tuple[Dataset, Dataset],
    stamp: Callable[[ir.Model], None],
) -> Quantized:
    """Calibrate, find the best decision within the budget, and make its model.

    Args:
        report: gets the points, the front and the ledger's lines.
        ui: hears of progress.
        config: the budget and all other options.
        source: the optimised float model.
        feeds: calibration batches.
        parts: the calibration and evaluation samples.
        stamp: writes into a model what it says of itself.

    Raises:
        UsageError: the data or an option is wrong.
        GateError: no decision keeps all limits.
        LimitError: a limit of time or memory came before one was found that does.

    """
    limits = search_limits(config)
    with ui.step("calibrate"), stage(report, "calibrate") as line:
        space = explore(source, feeds, config)
        set_facts(line, facts(source), facts(source))
    state = open_state(state_path(config), search_key(source, *parts, config))
    if state.found:
        ui.log(f"{state.path}: {state.found} results of an earlier search are used")
    judge = EngineJudge(
        space, source, *parts, config, ui, state, stamp, limits.latency_ms is not None
    )
    plan = Plan(space, judge, limits)
    with ui.step("search"), stage(report, "search") as line:
        best = _run(plan, report)
    lift_time_limit()
    line.options = {"layers": len(space.layers), "measured": len(plan.points)}
    put_candidates(report, plan, best)
    report.warnings += judge.refused
    state.close(keep=config.report is not None)
    if best is None:
        raise _missed(report, plan)
    with stage(report, "quantize") as line:
        result: Quantized = judge.build(best.assignment)
        set_facts(line, facts(source), facts(result.model))
        line.refusals = list(result.refusals)
    return result


def _run(plan: Plan, report: Report) -> Point | None:
    """When time or memory runs out, the best so far."""
    try:
        return plan.run()
    except (LimitError, LimitIsUp) as error:
        if isinstance(error, LimitIsUp):
            error.heard = True
        best = best_of(plan.points, plan.limits)
        if best is None:
            closest = ""
            if plan.points:
                text = points_text([("the closest is", nearest(plan.points, plan.limits))])
                closest = f"; of {len(plan.points)} measured {text}"
            raise LimitError(f"{error}; nothing within the limits was found yet{closest}") from None
        report.warnings.append(
            f"{error}: the search ended after {len(plan.points)} measured models; "
            "this is the best of them"
        )
        return best


def _missed(report: Report, plan: Plan) -> GateError:
    """How close the search came, and why not closer."""
    limits, points = plan.limits, plan.points
    point = nearest(points, limits)
    _judge(report, point, limits)
    report.passed = False
    layers = put_obstacles(report, plan.noise, point)
    sides = [
        ("without --max-size the smallest is", replace(limits, size=None)),
        ("without limits on accuracy the best is", replace(limits, drop=None, sqnr_db=None)),
        ("without --max-latency the best is", replace(limits, latency_ms=None)),
    ]
    others = [(text, best_of(points, less)) for text, less in sides if less != limits]
    text = points_text([("the closest is", point), *others])
    missed = ", ".join(excess(point, limits))
    error = GateError(
        f"gate failed: {missed}; {text}; in the way: {', '.join(layers)}; no file was written"
    )
    error.evidence = report
    return error


def _judge(report: Report, point: Point, limits: Limits) -> None:
    missed = excess(point, limits)
    rows = (
        ("max-drop", limits.drop, point.drop),
        ("min-sqnr", limits.sqnr_db, point.sqnr_db),
        ("max-size", limits.size, point.bytes),
        ("max-latency", limits.latency_ms, point.latency_ms),
    )
    report.gates = [
        Gate(name, float(limit), math.nan if value is None else float(value), name not in missed)
        for name, limit, value in rows
        if limit is not None
    ]
