"""Emitted C beside the engines that people would deploy: latency, size of the code, memory.

    python benchmarks/native/run.py [--cache FOLDER] [--resnet FILE] [--only TEXT] [--seconds S]

One thread, batch 1, every engine by turns in one process, medians in microseconds; "ours bf16" is
the C of `--precision bf16`, to be read beside OpenVINO as it decides by itself. Peers are ONNX
Runtime, OpenVINO (in float32, and as it decides by itself), LiteRT where there is a TFLite file of
the network, and ncnn and MNN where their wheels are installed (pip install ncnn pnnx mnn). int8
models come from `infertool quantize`. Ratios are to the best peer that computes in float32, for
int8 to the best of all. Exits 1 when a target is missed.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before libraries read it

import argparse  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

import numpy as np  # noqa: E402
import onnx_ir as ir  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
import peers  # noqa: E402
from models import Case, cases, quantised  # noqa: E402

from infer_native import NativeModel, build_library, emit_model  # noqa: E402
from infer_native.isa import ISAS, at_precision, runs_here  # noqa: E402
from infer_runtime.errors import InferError, UsageError  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[], object]

CACHE = Path.home() / ".cache" / "infertool"
FP32, INT8, WORST = 0.85, 0.75, 1.05  # geometric means, and the largest ratio of one model
OWN = {"fp32": {"EfficientNet-Lite0": 0.87}, "int8": {"EfficientNet-Lite0": 0.70}}
TEXT, COMPILE, EMISSION, ARENA = 300_000, 10.0, 5.0, 1.05
REDUCED = ("ours bf16", "OV bf16")  # no float32: shown, not compared
INTEGER_PEERS = ("ORT", "OpenVINO")


@dataclass
class Row:
    """What was measured on one model; microseconds by engine."""

    name: str
    times: dict[str, float]
    least: dict[str, float]
    error: float
    text: int
    arena: float
    compile: float
    emission: float
    missed: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """To the best peer of the same precision."""
        return _ratio(self.times)

    @property
    def quiet(self) -> float:
        """The same of the shortest runs: what a machine with nothing else to do would show."""
        return _ratio(self.least)


def _ratio(times: dict[str, float]) -> float:
    peers_ = [t for n, t in times.items() if n != "ours" and n not in REDUCED]
    return times["ours"] / min(peers_)


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the models")
    parser.add_argument("--resnet", type=Path, help="a float ResNet8 as .tflite")
    parser.add_argument("--only", default="", help="models whose name holds this text")
    parser.add_argument("--kind", choices=("fp32", "int8", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each engine and model")
    parser.add_argument("--compiler", default="auto")
    options = parser.parse_args()
    status = 0
    chosen = [c for c in cases(options.cache, options.resnet) if options.only in c.name]
    for kind in ("fp32", "int8") if options.kind == "both" else (options.kind,):
        rows: list[Row] = []
        print(head(kind))
        for case in chosen:
            row = measure(case, kind, options)
            if row is not None:
                rows.append(row)
                print(line(row, kind), flush=True)
        status |= verdict(rows, kind)
    return status


_HEADS = f"{'ratio':>8}{'least':>7}{'error':>9}{'text kB':>9}{'arena':>7}{'cc s':>6}{'emit s':>8}"


def head(kind: str) -> str:
    """The first line of the table."""
    return f"{kind:26}" + "".join(f"{n:>10}" for n in _columns(kind)) + _HEADS


def _columns(kind: str) -> list[str]:
    own = ["ours", "ours bf16"] if kind == "fp32" else ["ours"]
    return [*own, *(peers.PEERS if kind == "fp32" else INTEGER_PEERS)]


def measure(case: Case, kind: str, options: argparse.Namespace) -> Row | None:
    """All engines on one model, by turns; None where there is no such model."""
    path = case.path
    if kind == "int8":
        made = quantised(case.path.parent, case)
        if made is None:
            return None
        path = made
    with tempfile.TemporaryDirectory() as work:
        try:
            row, native = _ours(case, path, options.compiler, Path(work))
        except InferError as error:
            print(f"{case.name:26} {error}", flush=True)
            return None
        runs: dict[str, Run] = {"ours": native}
        if kind == "fp32" and (short := _in_bf16(case, options.compiler, Path(work))) is not None:
            runs["ours bf16"] = short
        for name in _columns(kind):
            if name in peers.PEERS and (run := _opened(name, case, path, Path(work))) is not None:
                runs[name] = run
        row.times, row.least = interleaved(runs, options.seconds)
    _judge(row, kind)
    return row


def _ours(case: Case, path: Path, compiler: str, work: Path) -> tuple[Row, Run]:
    shapes = {n: v.shape for n, v in case.feeds.items()}
    model = ir.load(path)
    start = time.perf_counter()
    emitted = emit_model(model, shapes)
    emission = time.perf_counter() - start
    start = time.perf_counter()
    library = build_library(emitted, compiler=compiler, folder=work)
    seconds = time.perf_counter() - start
    native = NativeModel(emitted, library)
    listed = subprocess.run(["size", str(library)], capture_output=True, text=True, check=True)
    text = int(listed.stdout.splitlines()[1].split()[0])
    wanted = _exact(path, case.feeds)
    error = max(
        float(np.abs(got.astype(np.float64) - want).max(initial=0) / max(np.abs(want).max(), 1e-9))
        for got, want in zip(native.run(case.feeds).values(), wanted, strict=True)
    )
    arena = emitted.arena_bytes / max(emitted.arena_bound, 1)
    row = Row(case.name, {}, {}, error, text, arena, seconds, emission)
    return row, native.bind(case.feeds)


def _in_bf16(case: Case, compiler: str, work: Path) -> Run | None:
    """Emitted with `--precision bf16`; None where the processor or the model has no use for it."""
    if not runs_here(at_precision(ISAS["avx512"], "bf16")):
        return None
    shapes = {n: v.shape for n, v in case.feeds.items()}
    try:
        emitted = emit_model(ir.load(case.path), shapes, "avx512", precision="bf16")
    except UsageError:
        return None
    library = build_library(emitted, compiler=compiler, folder=work)
    return NativeModel(emitted, library).bind(case.feeds)


def _exact(path: Path, feeds: peers.Feeds) -> list[np.ndarray]:
    """Of float models without optimisations; integer ones only mean the same bits with them."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if "int8" not in path.name:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(ort.InferenceSession(str(path), options).run(None, feeds))


def _opened(name: str, case: Case, path: Path, work: Path) -> Run | None:
    """An engine on the model, once it ran in a process of its own without crashing."""
    if name == "LiteRT":
        if case.tflite is None:
            return None
        path = case.tflite
    feeds = work / "feeds.npz"
    np.savez(feeds, **case.feeds)
    command = [sys.executable, peers.__file__, name, str(path), str(feeds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        print(f"  {name} fails on {case.name}: {lines[-1][:120]}", file=sys.stderr)
        return None
    return peers.PEERS[name](path, case.feeds)


def interleaved(
    runs: dict[str, Run], seconds: float, turns: int = 5
) -> tuple[dict[str, float], dict[str, float]]:
    """Median and smallest microseconds of each, measured by turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            run()
            end = time.perf_counter() + seconds / turns
            while time.perf_counter() < end:
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) * 1e6 for name, values in times.items()}
    return medians, {name: min(values) * 1e6 for name, values in times.items()}


def _judge(row: Row, kind: str) -> None:
    limit = OWN[kind].get(row.name, WORST)
    checks = {
        f"ratio over {limit}": row.ratio > limit, "code": row.text > TEXT,
        "arena": row.arena > ARENA, "compile": row.compile > COMPILE,
        "emission": row.emission > EMISSION,
    }  # fmt: skip
    row.missed = [name for name, missed in checks.items() if missed]


def line(row: Row, kind: str) -> str:
    """A row of the table."""
    times = "".join(
        f"{row.times[n]:>10.1f}" if n in row.times else f"{'-':>10}" for n in _columns(kind)
    )
    return (
        f"{row.name:26}{times}{row.ratio:>8.2f}{row.quiet:>7.2f}{row.error:>9.1e}"
        f"{row.text / 1000:>9.0f}"
        f"{row.arena:>7.2f}{row.compile:>6.1f}{row.emission:>8.2f}  {', '.join(row.missed)}"
    )


def verdict(rows: list[Row], kind: str) -> int:
    """Print the geometric mean; 1 when a target is missed."""
    mean, quiet = (_mean([getattr(r, name) for r in rows]) for name in ("ratio", "quiet"))
    target = FP32 if kind == "fp32" else INT8
    print(
        f"{kind}: geometric mean {mean:.3f} of {len(rows)} models, target {target}; "
        f"of the shortest runs {quiet:.3f}\n"
    )
    return int(mean > target or any(r.missed for r in rows))


def _mean(ratios: list[float]) -> float:
    """Geometric; 1 without numbers."""
    return float(np.exp(np.mean(np.log(ratios)))) if ratios else 1.0


if __name__ == "__main__":
    sys.exit(main())
