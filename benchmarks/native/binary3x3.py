"""Binary 3 x 3 convolutions beside the direct float32 kernel and Winograd's, all emitted.

    python benchmarks/native/binary3x3.py [--seconds S] [--compiler NAME]

Four after one another, one thread, by turns, medians in microseconds for all four; signs are packed
within the time. The binary layer
must be at least 15 times as fast as the direct float32 sum. Exits 1 when one is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import run  # first: it sets one thread  # isort: skip
import numpy as np
import onnx_ir as ir
from dense3x3 import DEPTH, SIZES

from infer_native import NativeModel, build_library, emit_model, select

LEAST = 15.0
TEXT = """<ir_version: 10, opset_import: ["": 20]>
t (float[1,C,S,S] x0, float[C,C,3,3] w) => (float[1,C,S,S] xD)
<float zero = {0}, float one = {1}, float other = {-1}>
{ BODY }"""
SIGNS = "gN = GreaterOrEqual(xN, zero)  sN = Where(gN, one, other)  "
CONV = "xM = Conv<pads = [1, 1, 1, 1]>(INPUT, w)  "


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each kernel and size")
    parser.add_argument("--compiler", default="auto")
    options = parser.parse_args()
    status, winograd = 0, select.winograd_size
    print(f"{'':14}{'direct':>10}{'winograd':>10}{'binary':>10}{'direct / binary':>18}{'least':>8}")
    for channels, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            runs: dict[str, run.Run] = {}
            for kind in ("direct", "winograd", "binary"):
                select.winograd_size = winograd if kind == "winograd" else _direct
                runs[kind] = _compiled(channels, size, kind, options.compiler, Path(folder))
            times, least = run.interleaved(runs, options.seconds, turns=20)
        ratio = times["direct"] / times["binary"]
        status |= ratio < LEAST
        print(
            f"{channels}x{size}x{size:<8}" + "".join(f"{times[k]:>10.1f}" for k in runs)
            + f"{ratio:>18.1f}{least['direct'] / least['binary']:>8.1f}", flush=True
        )  # fmt: skip
    return int(status)


def _direct(*_: object) -> int:
    return 0


def _compiled(channels: int, size: int, kind: str, compiler: str, folder: Path) -> run.Run:
    rng = np.random.default_rng(channels)
    body = ""
    for number in range(DEPTH):
        step = (SIGNS if kind == "binary" else "") + CONV
        step = step.replace("INPUT", "sN" if kind == "binary" else "xN")
        body += step.replace("N", str(number)).replace("M", str(number + 1))
    text = TEXT.replace("BODY", body).replace("C,", f"{channels},")
    text = text.replace("S,S", f"{size},{size}").replace("xD", f"x{DEPTH}")
    model = ir.from_onnx_text(text)
    (value,) = model.graph.inputs[1:]
    signs = np.where(rng.random((channels, channels, 3, 3)) < 0.5, 1, -1)
    value.const_value = ir.tensor(signs.astype(np.float32))
    model.graph.register_initializer(value)
    del model.graph.inputs[1:]
    emitted = emit_model(model)
    assert ("_BConv" in emitted.operators) == (kind == "binary")
    library = build_library(emitted, compiler=compiler, folder=folder)
    feed = {"x0": rng.normal(size=(1, channels, size, size)).astype(np.float32)}
    return NativeModel(emitted, library).bind(feed)


if __name__ == "__main__":
    sys.exit(main())
