"""EfficientNet-Lite0, ImageNet weights: .pt2 -> ONNX -> int8, measured on real photographs.

    python benchmarks/efficientnet_lite0/run.py DATA_FOLDER [--work DIR]

DATA_FOLDER holds JPEG images of 224x224 and labels.csv (file,label). 100 images calibrate, the
others evaluate. Prints one table and exits 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infer_tool import convert, quantize

if TYPE_CHECKING:
    from infer_tool.report.model import Report

PREPROCESS = "mean=127 std=128 layout=nchw"
CALIBRATION = 100


@dataclass(frozen=True)
class Target:
    """A number the project asks for and the one measured."""

    name: str
    asked: str
    measured: float
    passed: bool
    shown: str


def main() -> int:
    """Run the whole chain; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the images and labels.csv")
    parser.add_argument("--work", type=Path, default=None, help="folder for the files it makes")
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "infertool", help="wheel cache"
    )
    parser.add_argument("--calibration", default=None, help="calibration method of quantize")
    parser.add_argument("--runs", type=int, default=50, help="timed runs of each model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        return report(*chain(options, work))


def chain(options: argparse.Namespace, work: Path) -> tuple[Report, Report]:
    """Export, convert, quantise; every step verified by the tool itself."""
    source, onnx, int8 = (work / f"efficientnet_lite0{s}" for s in (".pt2", ".onnx", ".int8.onnx"))
    if not source.exists():
        # In a process of its own: the wheel's package stays out of this one.
        command = [sys.executable, str(Path(__file__).with_name("export.py")), str(options.cache)]
        subprocess.run([*command, str(source)], check=True)
    converted = convert(source, onnx, force=True, quiet=False)
    extra = {"calibration": options.calibration} if options.calibration else {}
    quantized = quantize(
        onnx,
        int8,
        data=str(options.data),
        preprocess=PREPROCESS,
        calib_samples=CALIBRATION,
        engine="onnxruntime",
        threads=1,
        runs=options.runs,
        force=True,
        quiet=False,
        **extra,
    )
    return converted, quantized


def report(converted: Report, quantized: Report) -> int:
    """Print the table; 1 when a target is missed."""
    accuracy, latency = quantized.accuracy, quantized.latency
    assert accuracy is not None
    assert accuracy.drop is not None
    assert quantized.artifact is not None
    assert quantized.source is not None
    drop, size = 100 * accuracy.drop, quantized.artifact.bytes / 1e6
    speed = latency[0].p50_ms / latency[1].p50_ms
    targets = [
        Target("top-1 drop", "<= 1.0 points", drop, drop <= 1.0 + 1e-9, f"{drop:.2f} points"),
        Target("file", "<= 5.3 MB", size, size <= 5.3, f"{size:.2f} MB"),
        Target("speed-up, 1 thread", ">= 1.6x", speed, speed >= 1.6, f"{speed:.2f}x"),
    ]
    print(f"EfficientNet-Lite0, {accuracy.engine}, {os.cpu_count()} cores")
    print(f"{CALIBRATION} calibration and {accuracy.samples} evaluation images")
    rows = [
        ("top-1 fp32", f"{100 * (accuracy.reference or 0):.2f} %"),
        ("top-1 int8", f"{100 * (accuracy.candidate or 0):.2f} %"),
        ("agreement with fp32", f"{100 * (accuracy.agreement or 0):.2f} %"),
        ("SQNR of the logits", f"{accuracy.sqnr_db:.1f} dB"),
        ("fp32 file", f"{quantized.source.bytes / 1e6:.2f} MB"),
        (
            "fp32 p50 / p90 / p99",
            "{0.p50_ms:.2f} / {0.p90_ms:.2f} / {0.p99_ms:.2f} ms".format(latency[0]),
        ),
        (
            "int8 p50 / p90 / p99",
            "{0.p50_ms:.2f} / {0.p90_ms:.2f} / {0.p99_ms:.2f} ms".format(latency[1]),
        ),
        ("MACs quantised", f"{100 * quantized.coverage.macs_fraction:.1f} %"),
        ("convert: largest error against torch", f"{converted.stages[1].max_abs_error:.2e}"),
    ]
    for name, value in rows:
        print(f"  {name:<38}{value}")
    for target in targets:
        verdict = "ok" if target.passed else "MISSED"
        print(f"  {target.name:<38}{target.shown:<16}asked {target.asked:<16}{verdict}")
    return 0 if all(t.passed for t in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
