"""The cells of a benchmark: engines, threads and batches."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.engines import engine_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_tool.config import Bench
    from infer_tool.report.model import Latency

AXES = ("engine", "threads", "batch")
MOST_SAMPLES = 4096  # in a batch that a sweep tries


@dataclass(frozen=True)
class Cell:
    """How all models run in one group of measurements."""

    engine: str
    threads: int
    batch: int


def cells(config: Bench, engines: Sequence[str]) -> list[Cell]:
    """Every combination, in the order given; `engines` are those of a matrix without that axis.

    Raises:
        UsageError: an unknown axis, or a value that is none.

    """
    axes = _parsed(config.matrix) if config.matrix is not None else {}
    names = axes.get("engine") or list(config.engine or engines)
    if unknown := [n for n in names if n not in engine_kinds()]:
        raise UsageError(f"--engine {unknown[0]!r}: expected one of {', '.join(engine_kinds())}")
    threads = [_number(t, "threads", 0) for t in axes.get("threads", [str(config.threads)])]
    batches = [_number(b, "batch", 1) for b in axes.get("batch", [str(config.batch)])]
    return [Cell(*values) for values in product(names, threads, batches)]


def _parsed(text: str) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for part in text.split():
        name, _, values = part.partition("=")
        if name not in AXES or not values:
            raise UsageError(f"--matrix {part!r}: expected {'=..., '.join(AXES)}=...")
        axes[name] = [v for v in values.split(",") if v]
    if not axes:
        raise UsageError(f"--matrix {text!r}: expected 'engine=... threads=1,2 batch=1,8'")
    return axes


def _number(text: str, axis: str, least: int) -> int:
    if not text.isdigit() or int(text) < least:
        raise UsageError(f"--matrix {axis}={text}: expected a whole number of at least {least}")
    return int(text)


def sweep(
    measure: Callable[[int], Latency | None], limit_ms: float, most: int = MOST_SAMPLES
) -> list[Latency]:
    """Rows of the batches that were tried: doubling while p90 keeps the limit, then halving.

    Args:
        measure: times one batch; None when the model does not take it.
        limit_ms: of the 90th percentile.
        most: samples in a batch.

    """
    rows: list[Latency] = []

    def fits(batch: int) -> bool:
        row = measure(batch)
        rows.extend([] if row is None else [row])
        return row is not None and row.p90_ms <= limit_ms

    good, step = 0, 1
    while step <= most and fits(step):
        good, step = step, 2 * step
    bad = step
    while good and bad - good > 1 and bad <= most:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return sorted(rows, key=lambda row: row.batch)
