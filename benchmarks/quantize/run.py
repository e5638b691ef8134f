"""Quantisers side by side: int8 of EfficientNet-Lite0 on the same images.

    python benchmarks/quantize/run.py DATA_FOLDER [--nncf PYTHON]

DATA_FOLDER holds JPEG images of 224x224 and labels.csv (file,label). 100 images calibrate, the
others evaluate; each tool runs in a process of its own, all files are evaluated by ONNX Runtime
(those in OpenVINO's format by OpenVINO, without a latency). PYTHON is an interpreter with nncf
(pip install nncf onnx onnxruntime openvino), which may not install beside the others. Exits 1
when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tools import TOOLS

from infer_tool import convert
from infer_tool.data import open_dataset
from infer_tool.engines import open_engine

PREPROCESS = "mean=127 std=128 layout=nchw"
CALIBRATION, BATCH, ROUNDS, RUNS = 100, 50, 15, 10
MARGIN_DB, LATENCY = 4.0, 1.05


@dataclass(frozen=True)
class Row:
    """One tool's file."""

    name: str
    sqnr: float
    agreement: float
    top1: float
    bytes: int
    seconds: float
    latency: float


def main() -> int:
    """Quantise with every tool, measure, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the images and labels.csv")
    parser.add_argument("--nncf", default=sys.executable, help="interpreter that has nncf")
    parser.add_argument("--only", nargs="+", default=[""], help="tools whose names begin so")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "infertool")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = export(options.cache, work)
        images, labels = load(source, options.data)
        name = open_engine("onnxruntime", source).inputs[0].name
        np.savez(work / "calibration.npz", **{name: images[:CALIBRATION]})
        results = quantise(source, work, options.nncf, tuple(options.only))
        rows = measure(source, results, images[CALIBRATION:], labels[CALIBRATION:])
        return verdict(rows, len(images) - CALIBRATION)


def export(cache: Path, work: Path) -> Path:
    """EfficientNet-Lite0 as optimised float ONNX."""
    script = Path(__file__).parents[1] / "efficientnet_lite0" / "export.py"
    subprocess.run([sys.executable, str(script), str(cache), str(work / "m.pt2")], check=True)
    convert(work / "m.pt2", work / "m.onnx", quiet=True)
    return work / "m.onnx"


def load(source: Path, folder: Path) -> tuple[Any, Any]:
    """All images and labels, in an order that a seed shuffled."""
    inputs = open_engine("onnxruntime", source).inputs
    dataset = open_dataset(str(folder), inputs, preprocess=PREPROCESS)
    first, rest = dataset.split(CALIBRATION, 0)
    parts = [(next(iter(f.values())), y) for part in (first, rest) for f, y in part.batches(BATCH)]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def quantise(
    source: Path, work: Path, nncf: str, only: tuple[str, ...]
) -> dict[str, tuple[Path, float]]:
    """File and seconds of each tool that works here."""
    results = {}
    for number, tool in enumerate(t for t in TOOLS if t.startswith(only)):
        target = work / f"{number}{'.xml' if tool.endswith('openvino') else '.onnx'}"
        python = nncf if tool.startswith("nncf") else sys.executable
        command = [python, str(Path(__file__).with_name("tools.py")), tool, str(source)]
        command += [str(work / "calibration.npz"), str(target)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            last = (run.stderr.strip().splitlines() or ["?"])[-1]
            print(f"  {tool}: no result: {last[:120]}", flush=True)
            continue
        results[tool] = (target, float(run.stdout.strip().splitlines()[-1]))
    return results


def measure(
    source: Path, results: dict[str, tuple[Path, float]], images: Any, labels: Any
) -> list[Row]:
    """Outputs of all files on the evaluation images, and latency at one thread by turns."""
    wanted = logits(source, images)
    times = latencies([source, *(path for path, _ in results.values())], images[:1])
    print(f"float32: top-1 {100 * np.mean(wanted.argmax(1) == labels):.2f} %, {times[0]:.2f} ms")
    rows = []
    for (tool, (path, seconds)), latency in zip(results.items(), times[1:], strict=True):
        got, weights = logits(path, images), path.with_suffix(".bin")
        noise = float(((got - wanted) ** 2).sum())
        rows.append(
            Row(
                tool,
                10 * np.log10(float((wanted**2).sum()) / noise),
                float(np.mean(got.argmax(1) == wanted.argmax(1))),
                float(np.mean(wanted.argmax(1) == labels) - np.mean(got.argmax(1) == labels)),
                sum(p.stat().st_size for p in {path, weights} if p.exists()),
                seconds,
                latency,
            )
        )
    return rows


def logits(path: Path, images: Any) -> Any:
    """Outputs as deployed."""
    if path.suffix == ".xml":
        return openvino_logits(path, images)
    engine = open_engine("onnxruntime", path, threads=os.cpu_count() or 1)
    name = engine.inputs[0].name
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return np.concatenate([next(iter(engine.run({name: x}).values())) for x in batches])


def openvino_logits(path: Path, images: Any) -> Any:
    """Outputs of OpenVINO, computing what is not quantised in float32."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    return np.concatenate([compiled(x)[0] for x in batches])


def latencies(paths: list[Path], image: Any) -> list[float]:
    """Medians in milliseconds at one thread, all files by turns; NaN for other engines' files."""
    engines = [
        open_engine("onnxruntime", path, threads=1) if path.suffix == ".onnx" else None
        for path in paths
    ]
    times: list[list[float]] = [[] for _ in engines]
    for _ in range(ROUNDS):
        for engine, found in zip(engines, times, strict=True):
            if engine is None:
                continue
            feeds = {engine.inputs[0].name: image}
            engine.run(feeds)
            for _ in range(RUNS):
                start = time.perf_counter()
                engine.run(feeds)
                found.append(time.perf_counter() - start)
    return [1e3 * float(np.median(found)) if found else float("nan") for found in times]


def verdict(rows: list[Row], count: int) -> int:
    """The table, and ours against the best of each column."""
    print(f"EfficientNet-Lite0, {count} images, {os.cpu_count()} cores")
    print(f"{'':<36}{'SQNR dB':>8}{'agree %':>9}{'drop':>7}{'MB':>7}{'ms':>7}{'seconds':>9}")
    for r in rows:
        shown = f"{100 * r.agreement:>9.2f}{100 * r.top1:>7.2f}{r.bytes / 1e6:>7.2f}"
        print(f"{r.name:<36}{r.sqnr:>8.2f}{shown}{r.latency:>7.2f}{r.seconds:>9.1f}")
    ours, peers = rows[0], rows[1:]
    by_name = {r.name: r for r in peers}
    best = max(peers, key=lambda r: r.sqnr)
    entropy = by_name.get("onnxruntime entropy", best)
    fastest = min(r.latency for r in peers if not np.isnan(r.latency))
    checks = [
        ("SQNR over the best peer, dB", ours.sqnr - best.sqnr, MARGIN_DB, True),
        ("agreement with float32", ours.agreement, max(r.agreement for r in peers), True),
        ("bytes over the smallest peer's", ours.bytes / min(r.bytes for r in peers), 1.0, False),
        ("latency over the best peer's", ours.latency / fastest, LATENCY, False),
        ("seconds over onnxruntime entropy", ours.seconds / entropy.seconds, 1.0, False),
    ]  # fmt: skip
    missed = 0
    for name, value, asked, least in checks:
        passed = value >= asked if least else value <= asked
        missed += not passed
        sign = ">=" if least else "<="
        print(
            f"  {name:<36}{value:>8.3f}  asked {sign} {asked:<8.3f}{'ok' if passed else 'MISSED'}"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
