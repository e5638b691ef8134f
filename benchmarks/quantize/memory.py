"""Peak memory of calibration with few and with many samples, and of a model of many weights.

    python benchmarks/quantize/memory.py MODEL.onnx [DATA.npz [ARRAY]] [--counts 100 2000]
    python benchmarks/quantize/memory.py --weights GIGABYTES [--scheme int8-weight]

Without data the samples are smooth random images. Each count runs in a process of its own; the
peak is that of the process above its size when everything is imported. Exits 1 beyond a tenth.
With --weights the whole command on a made model: the peak of its anonymous memory, engines that
check and evaluate the result included. Exits 1 beyond 2.5 times the weights of the source.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from footprint import peak_of

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH, MOST = 4, 1.1
MOST_OF_WEIGHTS = 2.5
WIDTH = 4096  # of the inputs of the made model


class Samples:
    """The first `count` samples, a batch at a time; nothing is kept."""

    def __init__(self, model: Path, count: int, data: Path | None, array: str) -> None:
        from infer_runtime import Session

        (info,) = Session(model).inputs
        assert info.shape is not None
        self.name, self.count = info.name, count
        self.shape = tuple(d if isinstance(d, int) else 224 for d in info.shape[1:])
        self.whole = np.load(data)[array] if data else None

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, self.count, BATCH):
            size = min(BATCH, self.count - start)
            if self.whole is not None:
                yield {self.name: self.whole[start : start + size].astype(np.float32)}
                continue
            noise = np.random.default_rng(start).normal(size=(size, *self.shape))
            yield {self.name: (noise + np.roll(noise, 1, -1)).astype(np.float32)}


def child(model: Path, count: int, data: Path | None, array: str) -> None:
    """Quantise in this process and print the bytes that it grew by, and the seconds."""
    import onnx_ir as ir

    from quant import quantize_model
    from quant.config import QuantizeConfig

    source, samples = ir.load(model), Samples(model, count, data, array)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    quantize_model(source, samples, QuantizeConfig())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(grown * 1024, time.perf_counter() - start)


def large(gigabytes: float, scheme: str) -> int:
    """Quantise a made model with the command, and judge its peak."""
    synthetic = Path(__file__).parents[1] / "optimize" / "synthetic.py"
    with TemporaryDirectory() as folder:
        source, data = Path(folder) / "large.onnx", Path(folder) / "data.npz"
        subprocess.run(
            [sys.executable, str(synthetic), "large", str(gigabytes), str(source)], check=True
        )
        noise = np.random.default_rng(0).normal(size=(24, WIDTH)).astype(np.float32)
        np.savez(data, x=noise)
        command = [sys.executable, "-m", "infer_tool", "quantize", str(source), "--quiet"]
        command += ["-o", str(Path(folder) / "result.onnx"), "--scheme", scheme, "--runs", "0"]
        command += ["--data", str(data), "--calib-samples", "8"]
        peak, status, seconds = peak_of(command)
    share = peak / 1e9 / gigabytes
    print(
        f"{scheme}, {gigabytes:g} GB of weights: {peak / 1e9:.2f} GB of anonymous memory, "
        f"{share:.2f} of the weights, asked <= {MOST_OF_WEIGHTS}; {seconds:.0f} s"
    )
    return 1 if status or share > MOST_OF_WEIGHTS else 0


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("array", nargs="?", default="train_x")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=float, help="gigabytes of a made model")
    parser.add_argument("--scheme", default="int8-weight")
    options = parser.parse_args()
    if options.weights:
        return large(options.weights, options.scheme)
    if options.model is None:
        parser.error("give a model, or --weights")
    if options.child:
        child(options.model, options.child, options.data, options.array)
        return 0
    peaks = []
    print(f"{'samples':>8}{'peak MB':>10}{'seconds':>10}")
    for count in options.counts:
        command = [sys.executable, __file__, *sys.argv[1:], "--child", str(count)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks.append(float(out[0]))
        print(f"{count:>8}{peaks[-1] / 1e6:>10.1f}{float(out[1]):>10.1f}", flush=True)
    ratio = max(peaks) / min(peaks)
    print(f"largest over smallest: {ratio:.3f}, asked <= {MOST}")
    return 1 if ratio > MOST else 0


if __name__ == "__main__":
    sys.exit(main())
