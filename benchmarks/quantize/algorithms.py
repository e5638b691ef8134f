"""What each algorithm of static quantisation gains, alone and together.

    python benchmarks/quantize/algorithms.py [MODEL DATA [--preprocess STEPS]] [--scheme w4a8 ...]

Without arguments: the digits of sample_models. "Alone" is on top of min-max ranges and rounding to
nearest; "together" is on top of the defaults. Logits of ONNX Runtime against float32.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_tool import convert
from infer_tool.data import open_dataset
from infer_tool.engines import open_engine
from quant import quantize_model
from quant.config import QuantizeConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAMPLES = Path(__file__).parents[2] / "sample_models"
PLAIN: dict[str, Any] = {"calibration": "minmax", "rounding": "nearest", "bias_correction": False}
ALONE: dict[str, dict[str, Any]] = {
    "min-max, to nearest": {},
    "moving average": {"calibration": "moving-average"},
    "percentile": {"calibration": "percentile"},
    "entropy": {"calibration": "entropy"},
    "least squared error": {"calibration": "mse"},
    "GPTQ": {"rounding": "gptq"},
    "analytic bias correction": {"bias_correction": True},
    "empirical bias correction": {"empirical_bias": True},
    "equalisation": {"equalize": True},
    "SmoothQuant 0.5": {"smooth": 0.5},
    "AdaRound": {"reconstruct": "layer"},
    "blocks (BRECQ)": {"reconstruct": "block"},
    "learned ranges": {"learn_ranges": True},
}
TOGETHER: dict[str, dict[str, Any]] = {
    "defaults": {},
    "+ empirical bias correction": {"empirical_bias": True},
    "+ equalisation": {"equalize": True},
    "+ SmoothQuant 0.5": {"smooth": 0.5},
    "+ AdaRound": {"reconstruct": "layer"},
    "+ blocks (BRECQ)": {"reconstruct": "block"},
    "+ learned ranges": {"learn_ranges": True},
    "+ blocks, ranges, empirical": {
        "reconstruct": "block", "learn_ranges": True, "empirical_bias": True,
    },
    "+ equalisation, blocks, empirical": {
        "reconstruct": "block", "equalize": True, "empirical_bias": True,
    },
}  # fmt: skip


def logits(model: ir.Model, feeds: list[dict[str, Any]]) -> Any:
    """The first output for all samples."""
    engine = open_engine("onnxruntime", model, threads=0)
    return np.concatenate([next(iter(engine.run(f).values())) for f in feeds])


def rows(
    model: ir.Model, scheme: str, parts: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    steps: int, skip: Sequence[str],
) -> Iterator[tuple[str, float, float, float]]:  # fmt: skip
    """Name, dB, share of equal answers and seconds of each variant."""
    calibration, evaluation = parts
    wanted = logits(model, evaluation)
    variants = [(name, {**PLAIN, **o}) for name, o in ALONE.items()]
    for name, options in [*variants, *TOGETHER.items()]:
        if any(part in name for part in skip):
            continue
        start = time.perf_counter()
        config = QuantizeConfig(scheme=scheme, steps=steps, **options)  # type: ignore[arg-type]
        result = quantize_model(model, calibration, config).model
        seconds = time.perf_counter() - start
        got = logits(result, evaluation)
        noise = float(((got - wanted) ** 2).sum())
        same = float(np.mean(got.argmax(1) == wanted.argmax(1)))
        yield name, 10 * np.log10(float((wanted**2).sum()) / noise), same, seconds


def main() -> int:
    """Print a table for each scheme."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=SAMPLES / "digits_cnn.onnx")
    parser.add_argument("data", type=Path, nargs="?", default=SAMPLES / "digits.npz")
    parser.add_argument("--preprocess")
    parser.add_argument("--scheme", nargs="+", default=["int8", "w4a8"])
    parser.add_argument("--calibration", type=int, default=128)
    parser.add_argument("--evaluation", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--skip", nargs="+", default=(), help="no variants whose name holds this")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:  # quantisation starts from what convert makes
        convert(options.model, Path(folder) / "m.onnx", quiet=True)
        model = ir.load(Path(folder) / "m.onnx")
    inputs = open_engine("onnxruntime", model).inputs
    data = open_dataset(str(options.data), inputs, preprocess=options.preprocess)
    first, rest = data.split(options.calibration, 0)
    calibration = [f for f, _ in first.batches(options.batch)]
    count = -(-options.evaluation // options.batch)
    evaluation = [f for f, _ in islice(rest.batches(options.batch), count)]
    for scheme in options.scheme:
        print(f"{options.model.stem}, {scheme}: {options.calibration} samples calibrate")
        print(f"{'':<36}{'SQNR dB':>8}{'agree %':>9}{'seconds':>9}")
        for name, decibels, same, seconds in rows(
            model, scheme, (calibration, evaluation), options.steps, options.skip
        ):
            print(f"{name:<36}{decibels:>8.2f}{100 * same:>9.2f}{seconds:>9.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
