"""The reference runtime beside onnx.reference and ONNX Runtime, on real models.

    python benchmarks/runtime.py [--cache FOLDER] [--only TEXT] [--seconds S]

Each engine runs each model by turns in one process, with two threads. Prints one table: medians,
ratios, the largest difference from ONNX Runtime without optimisations (relative to the largest
value of the output), and the peak memory against the plan's own lower bound. Exits 1 when a
target is missed.
"""

from __future__ import annotations

import os

THREADS = 2
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = str(THREADS)  # before NumPy loads its BLAS

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import tracemalloc  # noqa: E402
import warnings  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

import numpy as np  # noqa: E402
from zoo import CACHE, Entry, Feeds, entries  # noqa: E402

from infer_runtime import Session  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

FASTER_THAN_REFERENCE = 10.0
SLOWER_THAN_ORT = 8.0
LARGEST_ERROR = 1e-4
LARGEST_MEMORY = 1.5
TURNS = 3
WARM_UP = 0.15  # seconds
MEASURED_MEMORY = ("EfficientNet-Lite0", "MiniLM-L6", "PP-OCRv4 det", "PP-OCRv4 rec")


@dataclass(frozen=True)
class Row:
    """What was measured on one model; times in milliseconds, None where an engine failed."""

    name: str
    ours: float
    reference: float | None
    ort: float
    error: float
    memory: float


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the models")
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each engine and model")
    parser.add_argument("--no-reference", action="store_true", help="leave out onnx.reference")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    print(f"{os.cpu_count()} cores, {THREADS} threads; milliseconds")
    heads = f"{'x ref':>8}{'/ ORT':>7}{'error':>10}{'memory':>8}"
    print(f"{'':<24}{'ours':>9}{'onnx.ref':>10}{'ORT':>8}{heads}")
    for entry in entries(options.cache):
        if options.only in entry.name:
            row = measure(entry, options.seconds, not options.no_reference)
            rows.append(row)
            print(line(row), flush=True)
    return verdict(rows)


def measure(entry: Entry, seconds: float, with_reference: bool) -> Row:
    """All engines on one model, by turns."""
    session = Session(entry.path)
    exact, fast = ort_session(entry.path, optimised=False), ort_session(entry.path, optimised=True)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: session.run(entry.feeds),
        "ort": lambda: fast.run(None, entry.feeds),
    }
    if with_reference and (reference := reference_run(entry)) is not None:
        runs["reference"] = reference
    times = interleaved(runs, seconds)
    wanted = dict(
        zip([o.name for o in exact.get_outputs()], exact.run(None, entry.feeds), strict=True)
    )
    error = largest_error(session.run(entry.feeds), wanted)
    memory = peak_memory(entry.path, entry.feeds)
    return Row(entry.name, times["ours"], times.get("reference"), times["ort"], error, memory)


def ort_session(path: Path, *, optimised: bool) -> Any:
    """ONNX Runtime on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def reference_run(entry: Entry) -> Callable[[], Any] | None:
    """onnx.reference, unless it cannot run the model."""
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(str(entry.path))
        evaluator.run(None, entry.feeds)
    except Exception as error:  # noqa: BLE001 - any failure of the peer is a missing number
        print(f"  onnx.reference fails on {entry.name}: {type(error).__name__}", file=sys.stderr)
        return None
    return lambda: evaluator.run(None, entry.feeds)


def interleaved(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each, measured by turns.

    A turn is a block of runs whose first ones do not count: the idle threads of one engine spin
    for a while and would slow the next one down.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            start = time.perf_counter()
            while (now := time.perf_counter()) < start + WARM_UP:
                run()
            end = now + seconds / TURNS
            while len(times[name]) < TURNS or time.perf_counter() < end:
                start = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in times.items()}


def largest_error(ours: Feeds, theirs: Feeds) -> float:
    """Relative to the largest value of each output."""
    errors = [0.0]
    for name, wanted in theirs.items():
        scale = np.abs(wanted).max(initial=0) or 1.0
        errors.append(float(np.abs(ours[name].astype(np.float64) - wanted).max(initial=0) / scale))
    return max(errors)


def peak_memory(path: Path, feeds: Feeds) -> float:
    """Peak of the arrays of loading and one run, over weights and largest live set."""
    tracemalloc.start()
    session = Session(path)
    session.run(feeds)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / session.memory_bound(feeds)


def line(row: Row) -> str:
    """One line of the table."""
    reference = f"{row.reference:>10.2f}" if row.reference else f"{'-':>10}"
    faster = f"{row.reference / row.ours:>8.1f}" if row.reference else f"{'-':>8}"
    return (
        f"{row.name:<24}{row.ours:>9.2f}{reference}{row.ort:>8.2f}{faster}"
        f"{row.ours / row.ort:>7.1f}{row.error:>10.1e}{row.memory:>8.2f}"
    )


def verdict(rows: list[Row]) -> int:
    """Print the targets; 1 when one is missed."""
    compared = [r.reference / r.ours for r in rows if r.reference]
    lite = [r.reference / r.ours for r in rows if r.reference and r.name == "EfficientNet-Lite0"]
    memory = [r.memory for r in rows if r.name in MEASURED_MEMORY]
    checks = [("error", max(r.error for r in rows), LARGEST_ERROR, False)]
    if lite:
        checks.append(
            ("EfficientNet-Lite0: faster than onnx.reference", lite[0], FASTER_THAN_REFERENCE, True)
        )
    if compared:
        mean = statistics.geometric_mean(compared)
        checks.append(
            ("geometric mean: faster than onnx.reference", mean, FASTER_THAN_REFERENCE, True)
        )
    slower = statistics.geometric_mean(r.ours / r.ort for r in rows)
    checks.append(("geometric mean: slower than ONNX Runtime", slower, SLOWER_THAN_ORT, False))
    if memory:
        checks.append(("peak memory over the lower bound", max(memory), LARGEST_MEMORY, False))
    passed = True
    for name, value, limit, at_least in checks:
        good = value >= limit if at_least else value <= limit
        passed &= good
        asked = f"{'>=' if at_least else '<='} {limit:g}"
        print(f"  {name:<50}{value:>10.3g}  asked {asked:<10}{'ok' if good else 'MISSED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
