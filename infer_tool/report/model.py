"""The report: schema 1 of report.json as dataclasses. Later versions only add fields."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infer_tool.version import version

SCHEMA = 1


@dataclass(frozen=True)
class Artifact:
    """A model file: where, what kind, how large."""

    path: str
    format: str
    sha256: str | None
    bytes: int
    nodes: int
    parameters: int
    macs: int
    opset: int


@dataclass
class Stage:
    """One line of the ledger; pairs are (before, after)."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory_bytes: int | None = None
    nodes: tuple[int, int] | None = None
    bytes: tuple[int, int] | None = None
    parameters: tuple[int, int] | None = None
    macs: tuple[int, int] | None = None
    max_abs_error: float | None = None
    sqnr_db: float | None = None
    refusals: list[Any] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Accuracy:
    """One metric of source and candidate on the same samples, and how alike their outputs are."""

    metric: str
    reference: float | None
    candidate: float | None
    drop: float | None
    samples: int
    agreement: float | None
    sqnr_db: float
    cosine: float
    max_abs_error: float
    engine: str


@dataclass(frozen=True)
class Ratio:
    """Time of one model over that of another, and the interval that holds its median."""

    median: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one model on one engine."""

    model: str
    engine: str
    threads: int
    batch: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    runs: int
    p95_ms: float | None = None
    max_ms: float | None = None
    throughput: float | None = None  # samples a second, at the median
    load_ms: float | None = None
    peak_memory_bytes: int | None = None  # that loading and one run added to a process of its own
    ratio: Ratio | None = None  # to the first row of its group, from the same rounds
    quantiles_ms: list[float] = field(default_factory=list)  # 0 % to 100 %, evenly spaced


@dataclass(frozen=True)
class Gate:
    """A limit and what was measured."""

    name: str
    limit: float
    value: float
    passed: bool


@dataclass(frozen=True)
class OutputCheck:
    """One output of a candidate compared with the reference."""

    output: str
    engine: str
    max_abs: float
    max_rel: float
    sqnr_db: float
    cosine: float
    passed: bool
    mean_abs: float | None = None
    agreement: float | None = None  # share of rows with the same largest score
    asked: str = ""
    would_pass: str | None = None  # the option that would let it pass


@dataclass(frozen=True)
class Layer:
    """One node of the result; what a command did not measure is None."""

    node: str
    op: str
    bytes: int | None = None  # of its weights
    macs: int | None = None
    ms: float | None = None
    engine: str | None = None  # that took these milliseconds
    # Root mean square of the error over that of the source's value; 0 is exact. Its own: with
    # the source's values as inputs; the other: with all errors of the layers before.
    own_noise: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A point that a search tried."""

    label: str
    bytes: int
    drop: float | None
    latency_ms: float | None
    chosen: bool = False
    sqnr_db: float | None = None
    formats: dict[str, str] = field(default_factory=dict)  # by layer; of the chosen one


@dataclass
class Report:
    """Everything a command found; `document()` is report.json."""

    command: str
    config: dict[str, Any]
    seed: int | None = None
    source: Artifact | None = None
    artifact: Artifact | None = None
    stages: list[Stage] = field(default_factory=list)
    coverage: Any = None
    deployed: Any = None  # of coverage, what an engine really computes with integers
    accuracy: Accuracy | None = None  # as deployed: the engine at its default level
    exact: Accuracy | None = None  # the file as written, where the engine computes another thing
    latency: list[Latency] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    outputs: list[OutputCheck] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    advice: list[str] = field(default_factory=list)  # command lines that would help
    warnings: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    reproduce: str = ""  # the command line with these options
    passed: bool = True

    def document(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that JSON cannot hold (NaN, infinity) become null."""
        body = {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return {"schema": SCHEMA, "tool": {"name": "infertool", "version": version()}, **body}


def plain(value: Any) -> Any:
    """Dataclasses, paths and numpy scalars as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
