"""Is int8 in emitted C bit for bit what ONNX Runtime computes, on real images?

    python benchmarks/native/identical.py DATA_FOLDER [--count 100]

DATA_FOLDER holds JPEG images of 224x224 and labels.csv (file,label). EfficientNet-Lite0 by
`infertool quantize`, calibrated on 100 images; the images after those are compared. Exits 1 when
one differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).parents[1]))
import zoo

from infer_native import NativeModel, build_library, emit_model
from infer_tool import quantize
from infer_tool.data import open_dataset
from infer_tool.engines import open_engine

CALIBRATION = 100
PREPROCESS = "mean=127 std=128 layout=nchw"


def main() -> int:
    """Quantise, emit, compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the images and labels.csv")
    parser.add_argument("--count", type=int, default=100, help="images to compare")
    parser.add_argument("--cache", type=Path, default=zoo.CACHE)
    options = parser.parse_args()
    source = zoo._efficientnet(options.cache)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "int8.onnx"
        given = {"data": str(options.data), "preprocess": PREPROCESS, "runs": 0, "quiet": True}
        quantize(source, made, calib_samples=CALIBRATION, **given)
        engine = open_engine("onnxruntime", made)
        (name,) = (i.name for i in engine.inputs)
        emitted = emit_model(ir.load(made), {name: (1, 3, 224, 224)})
        native = NativeModel(emitted, build_library(emitted, folder=Path(folder)))
        images = open_dataset(str(options.data), engine.inputs, preprocess=PREPROCESS)
        different = compared = 0
        for feeds, _ in islice(images.batches(1), CALIBRATION, CALIBRATION + options.count):
            wanted, got = engine.run(feeds), native.run(feeds)
            different += any(not np.array_equal(got[n], wanted[n]) for n in wanted)
            compared += 1
    print(f"{compared} images: {different} differ in at least one bit")
    return int(different > 0 or compared == 0)


if __name__ == "__main__":
    sys.exit(main())
