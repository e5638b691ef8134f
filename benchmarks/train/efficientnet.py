"""EfficientNet-Lite0 pruned without labels: what channels cost when 400 images teach it.

    python benchmarks/train/efficientnet.py IMAGES [--target-macs 75%] [--epochs 8]
        [--time-budget 20min]

IMAGES is a folder of 500 JPEG images of 224x224 and labels.csv (file,label). Of each five in the
order of their names four are trained on, without labels, and one is measured on. Nothing is asked
for but that it works; the row says what it reached.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from run import finished

from infer_tool import prune

if TYPE_CHECKING:
    from infer_tool.report.model import Report

EXPORT = Path(__file__).parents[1] / "efficientnet_lite0" / "export.py"
PREPROCESS = "mean=127 std=128 layout=nchw"
SMALLEST = 0.5  # side of a crop over that of the image
EACH = 5  # of so many images one is measured on
LABELS = "labels.csv"


def main() -> int:
    """Split, prune, train, print one row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--target-macs", default="75%")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=0.002)
    parser.add_argument("--batch-norm", action="store_true", help="16 images say little of others")
    parser.add_argument("--train-threads", type=int, default=1)
    parser.add_argument("--time-budget", default="20min")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "infertool")
    given = vars(parser.parse_args())
    images, cache = given.pop("images"), given.pop("cache")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = split(images, work)
        model = work / "efficientnet_lite0.pt2"
        # In a process of its own: the wheel's package stays out of this one.
        subprocess.run([sys.executable, str(EXPORT), str(cache), str(model)], check=True)
        options = {**given, **data, "batch_size": 16, "augment": f"{Path(__file__)}:cropped"}
        show(finished(prune, model, work / "pruned.onnx", quiet=False, **options))
    return 0


def split(images: Path, work: Path) -> dict[str, Any]:
    """Two folders: images without labels, and images with them."""
    with (images / LABELS).open(encoding="utf-8") as file:
        rows = sorted(csv.reader(file))
    rows = [row for row in rows if row[0] != "file"]
    for part in ("train", "test"):
        (work / part).mkdir()
    for number, (name, _) in enumerate(rows):
        shutil.copy(images / name, work / ("train" if number % EACH else "test"))
    with (work / "test" / LABELS).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows[::EACH]])
    return {"data": str(work / "train"), "eval": str(work / "test"), "preprocess": PREPROCESS}


def cropped(feeds: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    """A square of each image [channels, height, width], as large as the whole, flipped or not."""
    return {name: np.stack([_crop(x, generator) for x in images]) for name, images in feeds.items()}


def _crop(image: Any, generator: np.random.Generator) -> Any:
    size = image.shape[-1]
    side = generator.uniform(SMALLEST, 1.0) * (size - 1)
    y, x = generator.uniform(0, size - 1 - side, 2)
    steps = side * np.linspace(0, 1, size)
    rows, columns = np.rint(y + steps).astype(int), np.rint(x + steps).astype(int)
    if generator.random() < 0.5:
        columns = columns[::-1]
    return image[:, rows[:, None], columns]


def show(report: Report) -> None:
    """One row."""
    accuracy, (before, after) = report.accuracy, report.latency[:2]
    assert accuracy is not None
    assert accuracy.drop is not None
    assert report.artifact is not None
    assert report.source is not None
    trained = next(s for s in report.stages if s.name == "train")
    print(
        f"EfficientNet-Lite0: MACs {100 * report.artifact.macs / report.source.macs:.0f} %, "
        f"bytes {100 * report.artifact.bytes / report.source.bytes:.0f} %, "
        f"{before.p50_ms / after.p50_ms:.2f}x; top-1 {100 * (accuracy.reference or 0):.1f} -> "
        f"{100 * (accuracy.candidate or 0):.1f} % of {accuracy.samples} images, agreement "
        f"{100 * (accuracy.agreement or 0):.1f} %; {len(trained.options['losses'])} epochs in "
        f"{trained.seconds:.0f} s{'' if report.passed else ', ended by the clock'}"
    )


if __name__ == "__main__":
    sys.exit(main())
