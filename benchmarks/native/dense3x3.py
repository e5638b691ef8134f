"""Dense 3 x 3 convolutions, where Winograd's algorithm decides, beside the engines that have it.

    python benchmarks/native/dense3x3.py [--cache FOLDER] [--kind fp32|int8|both] [--seconds S]

Four convolutions with Relu after one another at 64x56x56, 128x28x28, 256x14x14 and 512x7x7; every
engine by turns in one process at one thread, medians in microseconds for all four. fp32 must beat
ncnn and MNN (pip install ncnn pnnx mnn) on each size, int8 OpenVINO. Exits 1 when it does not, or
when a peer that it must beat is not there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import run  # first: it sets one thread  # isort: skip
import numpy as np
import onnx
from models import Case
from onnx import TensorProto, helper, numpy_helper

SIZES = {64: 56, 128: 28, 256: 14, 512: 7}
DEPTH = 4
RIVALS = {"fp32": ("ncnn", "MNN"), "int8": ("OpenVINO",)}


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=run.CACHE, help="folder for the models")
    parser.add_argument("--kind", choices=("fp32", "int8", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each engine and model")
    parser.add_argument("--compiler", default="auto")
    options = parser.parse_args()
    folder = options.cache / "native-dense3x3"
    folder.mkdir(parents=True, exist_ok=True)
    status = 0
    for kind in ("fp32", "int8") if options.kind == "both" else (options.kind,):
        print(run.head(kind))
        for channels, size in SIZES.items():
            row = run.measure(_case(folder, channels, size), kind, options)
            missing = [n for n in RIVALS[kind] if row is None or n not in row.times]
            slower = [n for n in RIVALS[kind] if row and row.times.get(n, 1e9) < row.times["ours"]]
            notes = [f"no {n}" for n in missing] + [f"slower than {n}" for n in slower]
            status |= bool(notes)
            if row is not None:
                row.missed = notes
                print(run.line(row, kind), flush=True)
    return status


def _case(folder: Path, channels: int, size: int) -> Case:
    """The chain as a file, with weights that keep the size of the numbers."""
    path = folder / f"dense_{channels}x{size}x{size}.onnx"
    rng = np.random.default_rng(channels)
    shape = (1, channels, size, size)
    if not path.exists():
        onnx.save(_chain(rng, shape), path)
    return Case(path.stem, path, {"x": rng.normal(size=shape).astype(np.float32)})


def _chain(rng: np.random.Generator, shape: tuple[int, ...]) -> onnx.ModelProto:
    channels, nodes, constants = shape[1], [], []
    for number in range(DEPTH):
        filters = rng.normal(size=(channels, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        bias = rng.normal(size=channels) * 0.1
        constants += [
            numpy_helper.from_array(a.astype(np.float32), f"{n}{number}")
            for n, a in (("w", filters), ("b", bias))
        ]
        given = [f"r{number}" if number else "x", f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", given, [f"c{number}"], pads=[1, 1, 1, 1]))
        last = number == DEPTH - 1
        nodes.append(helper.make_node("Relu", [f"c{number}"], ["y" if last else f"r{number + 1}"]))
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "dense", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


if __name__ == "__main__":
    sys.exit(main())
