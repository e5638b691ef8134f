"""Training on CIFAR-10 in numbers: what each method costs and gains on ResNet8.

    python benchmarks/train/run.py METHOD... [--data FILE] [--model FILE] [--seeds 2] [--epochs N]
        [--time-budget 20min]

METHOD is one of those of the table below, or all. Each is one command of the tool, with a budget of
20 minutes; accuracy is of the 2,500 test images, which nothing is trained on and no epoch chosen
by; some options of the table were, by seed 0. Methods on digits train a bundled model instead.
Exits 1 when the mean over the seeds misses a target.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cifar

import infer_tool
from infer_runtime.errors import LimitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from infer_tool.report.model import Report

SHARED = Path(__file__).parents[3] / "shared"
SAMPLES = Path(__file__).parents[2] / "sample_models"
COMMON = {"force": True, "quiet": False}
CIFAR = {"batch_size": 64, "augment": f"{Path(__file__).with_name('cifar.py')}:augment"}
DIGITS = {"batch_size": 16, "data": str(SAMPLES / "digits.npz")}
LABELS = 0.6  # of the loss, where much is lost: ResNet8 itself knows 77 % of these images


@dataclass(frozen=True)
class Method:
    """A command, its options, and the most points of accuracy that it may lose.

    `speed_up` is asked for at least, `size` (of the file, over the source's) at most.
    """

    command: str
    options: dict[str, Any]
    drop: float
    speed_up: float | None = None
    size: float | None = None
    digits: bool = False  # on the bundled model
    gain: float | None = None  # points above the same training with `instead` of its options
    instead: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "w4a4": Method(
        "quantize", {"scheme": "w4a4", "train": True, "epochs": 20, "learning_rate": 0.005}, 1.0
    ),
    "w2a4": Method(
        "quantize", {"scheme": "w2a4", "train": True, "epochs": 20, "learning_rate": 0.01}, 4.0
    ),
    "macs50": Method(
        "prune", {"target_macs": "50%", "epochs": 50, "label_weight": LABELS}, 2.0, 1.4
    ),
    "macs25": Method(
        "prune", {"target_macs": "25%", "rounds": 2, "epochs": 80, "label_weight": LABELS}, 6.0
    ),
    "w1a32": Method("binarize", {"epochs": 40, "rise": 0.3, "label_weight": LABELS}, 4.0),
    "w1a1": Method(
        "binarize",
        {"activations": "binary", "epochs": 45, "rise": 0.3, "label_weight": LABELS},
        15.0,
    ),
    "w1a1-digits": Method("binarize", {"activations": "binary"}, 1.5, digits=True),
    "sparse80": Method(
        "prune",
        {
            "sparsity": "80%",
            "rounds": 4,
            "epochs": 30,
            "learning_rate": 0.01,
            "label_weight": LABELS,
        },
        1.5,
        size=0.35,
    ),
    "cluster16": Method("cluster", {"clusters": 16, "epochs": 4}, 1.0),
    "svd60": Method("factorize", {"target_params": "60%", "epochs": 10}, 1.5),
    "distill50": Method(
        "distill",
        {"shrink": 0.5, "epochs": 30, "label_weight": LABELS},
        100.0,
        gain=1.5,
        instead={"label_weight": 1.0},
    ),
}


def main() -> int:
    """Run the methods that are asked for, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="+", choices=[*METHODS, "all"])
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "cifar10_sample.npz")
    parser.add_argument(
        "--model", type=Path, default=SHARED / "models" / "resnet8_cifar10_float.tflite"
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--time-budget", default="20min", help="of each command")
    options = parser.parse_args()
    names = list(METHODS) if "all" in options.methods else options.methods
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        command = [sys.executable, "-m", "infer_tool", "convert", str(options.model), "-o"]
        subprocess.run([*command, str(work / "float.onnx"), "--quiet"], check=True)
        data = cifar.write(options.data, work / "float.onnx", work)
        missed = [name for name in names if not measured(name, options, data, work)]
    return 1 if missed else 0


def measured(name: str, options: argparse.Namespace, data: tuple[Path, Path], work: Path) -> bool:
    """One row: means over the seeds, and whether they meet the target."""
    method = METHODS[name]
    where = DIGITS if method.digits else {**CIFAR, "data": str(data[0]), "eval": str(data[1])}
    given = {**COMMON, **where, **method.options, "time_budget": options.time_budget}
    if options.epochs is not None:
        given["epochs"] = options.epochs
    reports = _reports(name, given, options.seeds, work)
    layers = [s.options["smaller"] for s in reports[0].stages if "smaller" in s.options]
    gain = 0.0
    if method.gain is not None:
        others = _reports(name, given | method.instead, options.seeds, work)
        gain = 100 * (_accuracy(reports) - _accuracy(others))
    drops = [100 * r.accuracy.drop for r in reports]
    drop = sum(drops) / len(drops)
    faster = sum(r.latency[0].p50_ms / r.latency[1].p50_ms for r in reports) / len(reports)
    size = reports[0].artifact.bytes / reports[0].source.bytes
    macs = reports[0].artifact.macs / reports[0].source.macs
    good = drop <= method.drop and faster >= (method.speed_up or 0)
    good &= gain >= (method.gain or 0)
    good &= method.size is None or size <= method.size
    early = sum(not r.passed for r in reports)
    seeds = " ".join(f"{d:.2f}" for d in drops)
    print(
        f"{name:<10} drop {drop:6.2f} points (asked {method.drop:g}), {faster:.2f}x, "
        f"{f'gain {gain:.2f} (asked {method.gain:g}), ' if method.gain else ''}"
        f"MACs {100 * macs:.0f} %, bytes {100 * size:.0f} %, seeds {seeds}"
        f"{f', binary layers {layers[0]:.1f} times smaller' if layers else ''}"
        f"{f', {early} ended by the clock' if early else ''}: {'ok' if good else 'MISSED'}",
        flush=True,
    )
    return good


def _reports(name: str, given: dict[str, Any], seeds: int, work: Path) -> list[Report]:
    """One training for each seed."""
    run = getattr(infer_tool, METHODS[name].command)
    model = SAMPLES / "digits_cnn.onnx" if METHODS[name].digits else work / "float.onnx"
    written = work / f"{name}.onnx"
    return [finished(run, model, written, seed=seed, **given) for seed in range(seeds)]


def finished(run: Callable[..., Report], *arguments: Any, **options: Any) -> Report:
    """The report of a training; where the clock ended it, of the best so far, which is written."""
    try:
        return run(*arguments, **options)
    except LimitError as error:
        if error.evidence is None:
            raise
        report: Report = error.evidence
        return report


def _accuracy(reports: list[Report]) -> float:
    return sum(r.accuracy.candidate for r in reports) / len(reports)


if __name__ == "__main__":
    sys.exit(main())
