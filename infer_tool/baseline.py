"""A stored latency to compare with: in units of a yardstick that ran beside it.

Milliseconds of one machine say nothing on another one, and little on the same one an hour later.
What is stored is the ratio to a fixed piece of NumPy work, timed in the same rounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.files import atomic_path
from infer_tool.report.model import Gate, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_tool.report.model import Latency, Ratio

SCHEMA = 1
SIZE = 192  # a product of this size takes near a millisecond


def yardstick() -> Callable[[], Any]:
    """Work that any machine can do: products, exponentials, sums."""
    x = np.linspace(-1, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)

    def work() -> float:
        return float((np.exp(x) * np.tanh(x)).sum() + np.einsum("ij,ji->", x, x))

    return work


def key(row: Latency) -> str:
    """What a row is called in the file; folders differ between machines."""
    return f"{Path(row.model).name} {row.engine} threads={row.threads} batch={row.batch}"


def read_baseline(path: Path) -> dict[str, dict[str, float]]:
    """Rows by their key.

    Raises:
        UsageError: no such file, or it is none of ours.

    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows: dict[str, dict[str, float]] = document["rows"]
        for row in rows.values():
            _ = row["low"], row["high"]
    except FileNotFoundError as error:
        raise UsageError(f"--baseline {path}: no such file; make it: --update-baseline") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"--baseline {path}: not a baseline of infertool bench") from error
    return rows


def write_baseline(path: Path, rows: Sequence[Latency], ratios: Sequence[Ratio]) -> None:
    """Store the rows; other rows of an existing file stay."""
    kept = read_baseline(path) if path.exists() else {}
    for row, ratio in zip(rows, ratios, strict=True):
        kept[key(row)] = {
            "ratio": ratio.median, "low": ratio.low, "high": ratio.high, "p50_ms": row.p50_ms,
        }  # fmt: skip
    body = {"schema": SCHEMA, "unit": f"yardstick {SIZE}", "rows": dict(sorted(kept.items()))}
    with atomic_path(path, force=True) as temporary:
        temporary.write_text(json.dumps(plain(body), indent=2) + "\n", encoding="utf-8")


def baseline_gate(
    row: Latency, ratio: Ratio, stored: dict[str, dict[str, float]], limit: float
) -> Gate:
    """Missed when the row is slower beyond doubt: its interval against the stored one.

    Raises:
        UsageError: the file has no such row; a check that cannot run is not passed.

    """
    if key(row) not in stored:
        raise UsageError(f"the baseline has no row {key(row)!r}; add it with --update-baseline")
    change = ratio.low / stored[key(row)]["high"] - 1
    return Gate(f"max-latency-regress {key(row)}", limit, change, change <= limit)
