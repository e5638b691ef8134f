"""The report on stdout: tables for people, one JSON document for programs."""

from __future__ import annotations

import errno
import math
import os
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from infer_tool.report.write import to_json
from infer_tool.units import show_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infer_tool.report.model import Report

EXPLAINED = ("optimize", "convert")  # quantize explains its formats instead
PIPE_WIDTH = 120  # a pipe has no width; wide enough that no column is cut


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Not the library's exit status 1, which is that of a gate."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def show(report: Report, *, as_json: bool) -> None:
    """Print the report on stdout."""
    if as_json:
        sys.stdout.write(to_json(report) + "\n")
        return
    # Names of files and nodes are shown as they are; markup in them would be an error.
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    console = _Console(highlight=False, markup=False, width=width)
    for table in _tables(report):
        console.print(table)
    for line in report.advice:
        console.print(f"try: {line}", soft_wrap=True)
    for warning in report.warnings:
        console.print(f"warning: {warning}", style="yellow", soft_wrap=True)
    verdict = "passed" if report.passed else "FAILED"
    console.print(
        f"{report.command}: {verdict}", style="bold green" if report.passed else "bold red"
    )


def _tables(report: Report) -> Iterator[Table]:
    if report.source:
        yield _files(report)
    yield from _details(report)
    if report.coverage:
        yield _coverage(report.coverage, report.deployed)
        if report.config.get("explain") and report.coverage.fallbacks:
            yield _fallbacks(report.coverage.fallbacks)
    if report.accuracy:
        yield _accuracy(report.accuracy, report.exact)
    if report.latency:
        yield from _latency(report.latency)
    if report.outputs:
        yield _outputs(report.outputs)
    if report.gates:
        yield _gates(report.gates)
    if report.stages:
        yield _stages(report.stages, every=bool(report.config.get("explain")))
        if report.config.get("explain") and report.command in EXPLAINED:
            yield from _explanations(report.stages)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def _files(report: Report) -> Table:
    source, artifact = report.source, report.artifact
    sides = [_file_rows(side) for side in (source, artifact) if side is not None]
    table = _table("Files", "", "source", "result") if artifact else _table("Model", "", "value")
    for rows in zip(*sides, strict=True):
        table.add_row(rows[0][0], *(value for _, value in rows))
    return table


def _file_rows(artifact: Any) -> list[tuple[str, str]]:
    return [
        ("file", artifact.path),
        ("size", show_bytes(artifact.bytes)),
        ("nodes", f"{artifact.nodes:,}"),
        ("parameters", f"{artifact.parameters:,}"),
        ("MACs", f"{artifact.macs:,}"),
        ("opset", str(artifact.opset)),
    ]


def _details(report: Report) -> Iterator[Table]:
    """Free tables of inspect and doctor: {title: {"columns": [...], "rows": [[...], ...]}}."""
    for title, content in report.details.items():
        table = _table(title, *content["columns"])
        for row in content["rows"]:
            table.add_row(*map(str, row))
        yield table


def _coverage(coverage: Any, deployed: Any) -> Table:
    table = _table("Quantised", "share of", "value")
    table.add_row("MACs", f"{100 * coverage.macs_fraction:.1f} %")
    table.add_row("weight bytes", f"{100 * coverage.weights_bytes_fraction:.1f} %")
    table.add_row("nodes", f"{coverage.quantized_nodes} of {coverage.nodes}")
    if deployed:
        run = f"MACs in integer kernels of {deployed.engine}"
        table.add_row(run, f"{100 * deployed.macs_fraction:.1f} %")
    return table


def _fallbacks(fallbacks: Any) -> Table:
    table = _table("In float", "node", "op", "reason")
    for refusal in fallbacks:
        table.add_row(refusal.node, refusal.op, refusal.reason)
    return table


def _accuracy(deployed: Any, exact: Any) -> Table:
    table = _table(
        "Accuracy", deployed.metric, "source", "result", "drop", "agreement", "SQNR", "cosine",
        "samples",
    )  # fmt: skip
    for a, note in ((deployed, ""), (exact, ", as written")):
        if a is not None:
            table.add_row(
                f"{a.engine}{note}", _number(a.reference), _number(a.candidate), _number(a.drop),
                _number(a.agreement), f"{a.sqnr_db:.1f} dB", _number(a.cosine), str(a.samples),
            )  # fmt: skip
    return table


def _latency(rows: list[Any]) -> Iterator[Table]:
    """Two tables, so that each fits a terminal; files are shown without their folders."""
    times = {
        "p50 ms": [_ms(r.p50_ms) for r in rows],
        "p90": [_ms(r.p90_ms) for r in rows],
        "p95": [_ms(r.p95_ms) for r in rows],
        "p99": [_ms(r.p99_ms) for r in rows],
        "max": [_ms(r.max_ms) for r in rows],
    }
    rest = {
        "samples/s": ["-" if r.throughput is None else f"{r.throughput:,.0f}" for r in rows],
        "load ms": [_ms(r.load_ms) for r in rows],
        "peak memory": [
            "-" if r.peak_memory_bytes is None else show_bytes(r.peak_memory_bytes) for r in rows
        ],
        "speed-up (99 % interval)": [speed_up(r.ratio) for r in rows],
    }
    yield _rows_of("Latency", rows, times)
    yield _rows_of("Throughput", rows, rest)


def _rows_of(title: str, rows: list[Any], columns: dict[str, list[str]]) -> Table:
    """Without the columns that nothing was measured for."""
    shown = {name: column for name, column in columns.items() if set(column) != {"-"}}
    table = _table(title, "model", "engine", "threads", "batch", *shown)
    for place, row in enumerate(rows):
        where = (row.engine, str(row.threads or "auto"), str(row.batch))
        table.add_row(PurePath(row.model).name, *where, *(c[place] for c in shown.values()))
    return table


def speed_up(ratio: Any) -> str:
    """How often faster than the first row of its group, and the interval."""
    if ratio is None:
        return "-"
    return f"{1 / ratio.median:.2f}x ({1 / ratio.high:.2f} to {_inverse(ratio.low)})"


def _inverse(value: float) -> str:
    return f"{1 / value:.2f}" if value else "?"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _outputs(rows: list[Any]) -> Table:
    table = _table(
        "Outputs", "output", "engine", "max abs", "mean abs", "max rel", "SQNR", "cosine", "top-1",
        "would pass", "verdict",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.output, row.engine, f"{row.max_abs:.3g}", _error(row.mean_abs),
            f"{row.max_rel:.3g}", f"{row.sqnr_db:.1f} dB", f"{row.cosine:.6f}",
            _number(row.agreement), row.would_pass or "nothing",
            "ok" if row.passed else "MISMATCH",
        )  # fmt: skip
    return table


def _gates(gates: list[Any]) -> Table:
    table = _table("Gates", "gate", "limit", "value", "verdict")
    for gate in gates:
        verdict = "ok" if gate.passed else "FAILED"
        table.add_row(gate.name, f"{gate.limit:.6g}", f"{gate.value:.6g}", verdict)
    return table


def _stages(stages: list[Any], *, every: bool) -> Table:
    """The ledger; passes that changed nothing share a line unless all are asked for."""
    table = _table("Stages", "stage", "seconds", "nodes", "bytes", "max abs error")
    idle = [] if every else [s for s in stages if s.options.get("changes") == 0]
    for stage in stages:
        if stage in idle:
            continue
        nodes = f"{stage.nodes[0]} -> {stage.nodes[1]}" if stage.nodes else "-"
        size = " -> ".join(show_bytes(b) for b in stage.bytes) if stage.bytes else "-"
        table.add_row(stage.name, f"{stage.seconds:.2f}", nodes, size, _error(stage.max_abs_error))
    if idle:
        seconds = sum(s.seconds for s in idle)
        table.add_row(f"{len(idle)} passes without a change", f"{seconds:.2f}", "-", "-", "-")
    return table


def _explanations(stages: list[Any]) -> Iterator[Table]:
    """What fired and what was refused; a pass that knows no nodes shows its number of changes."""
    fired = _table("Changed", "pass", "changes", "nodes")
    refused = _table("Refused", "pass", "node", "op", "reason")
    for stage in stages:
        if changes := stage.options.get("changes"):
            fired.add_row(stage.name, str(changes), ", ".join(stage.fired) or "-")
        for refusal in stage.refusals:
            refused.add_row(stage.name, refusal.node, refusal.op, refusal.reason)
    yield from (table for table in (fired, refused) if table.row_count)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _error(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"
