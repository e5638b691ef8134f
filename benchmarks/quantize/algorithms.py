"""What each algorithm gains, alone and together: static quantisation, and short weights of text.

    python benchmarks/quantize/algorithms.py [MODEL DATA [--preprocess STEPS]] [--scheme w4a8 ...]
    python benchmarks/quantize/algorithms.py --images FOLDER --sentences 500

Without arguments: the digits of sample_models. FOLDER as for run.py: EfficientNet-Lite0, 100 images
calibrate. "Alone" is on top of min-max ranges and rounding to nearest; "together" is on top of the
defaults. Logits of ONNX Runtime against float32. With sentences also MiniLM-L6 as in minilm.py.
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

from infer_tool import convert, quantize
from infer_tool.data import open_dataset
from infer_tool.emitters.onnx import file_bytes
from infer_tool.engines import open_engine
from quant import quantize_model
from quant.config import QuantizeConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CACHE = Path.home() / ".cache" / "infertool"
SAMPLES = Path(__file__).parents[2] / "sample_models"
PLAIN: dict[str, Any] = {"calibration": "minmax", "rounding": "nearest", "bias_correction": False}
ALONE: dict[str, dict[str, Any]] = {
    "min-max, to nearest": {},
    "moving average": {"calibration": "moving-average"},
    "percentile": {"calibration": "percentile"},
    "entropy": {"calibration": "entropy"},
    "least squared error": {"calibration": "mse"},
    "GPTQ": {"rounding": "gptq"},
    "GPTQ behind quantised layers": {"rounding": "sequential"},
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
    "GPTQ only": {"rounding": "gptq"},
    "GPTQ behind quantised layers only": {"rounding": "sequential"},
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


TEXT: dict[str, dict[str, Any]] = {
    "int8-dynamic": {},
    "int8-dynamic, not smoothed": {"smooth": 0.0},
    "int8-weight, rtn": {"algorithm": "rtn"},
    "int8-weight, least squares": {"algorithm": "mse"},
    "int4-weight, rtn": {"algorithm": "rtn"},
    "int4-weight, least squares": {"algorithm": "mse"},
    "int4-weight, hqq": {"algorithm": "hqq"},
    "int4-weight, gptq": {"algorithm": "gptq"},
    "int4-weight, awq": {"algorithm": "awq"},
    "int4-weight, gptq, float tables": {"algorithm": "gptq", "exclude": "Gather"},
}


def logits(model: ir.Model, feeds: list[dict[str, Any]]) -> Any:
    """The first output for all samples."""
    engine = open_engine("onnxruntime", model, threads=0)
    return np.concatenate([next(iter(engine.run(f).values())) for f in feeds])


def rows(
    model: ir.Model, scheme: str, parts: tuple[list[Any], list[Any]], steps: int,
    skip: Sequence[str],
) -> Iterator[tuple[str, float, float, float, float]]:  # fmt: skip
    """Name, dB, share of equal answers, loss of top-1 and seconds of each variant."""
    calibration, evaluation = [f for f, _ in parts[0]], [f for f, _ in parts[1]]
    labels = None if parts[1][0][1] is None else np.concatenate([y for _, y in parts[1]])
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
        best, found = wanted.argmax(1), got.argmax(1)
        drop = float("nan")
        if labels is not None:
            drop = float(np.mean(best == labels) - np.mean(found == labels))
        decibels = 10 * np.log10(float((wanted**2).sum()) / noise)
        yield name, decibels, float(np.mean(found == best)), drop, seconds


def text(count: int) -> None:
    """The table of MiniLM-L6: mean cosine to float32, as written and as deployed."""
    import minilm

    feeds = minilm.tokens(minilm.CALIBRATION + count)
    calibration, evaluation = feeds[: minilm.CALIBRATION], feeds[minilm.CALIBRATION :]
    with TemporaryDirectory() as folder:
        work = Path(folder)
        source, data = work / "m.onnx", work / "c.npz"
        convert(minilm._minilm(minilm.CACHE), source, quiet=True)
        np.savez(data, **minilm.padded(calibration))
        whole, wanted = file_bytes(source), minilm.embeddings(source, evaluation)
        print(f"MiniLM-L6, {count} sentences: cosine to float32")
        print(f"{'':<36}{'written':>9}{'deployed':>10}{'of fp32':>9}{'seconds':>9}")
        for name, options in TEXT.items():
            start, path = time.perf_counter(), work / "q.onnx"
            if "exclude" in options:
                kind = options["exclude"]
                names = [n.name for n in ir.load(source).graph if n.op_type == kind]
                options = {**options, "exclude": tuple(names)}
            quantize(
                source, path, scheme=name.split(",")[0], calib=str(data), eval=str(data),
                samples=8, runs=0, quiet=True, force=True, **options,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            written, deployed = (
                minilm.cosines(path, evaluation, wanted, optimize=optimize).mean()
                for optimize in (False, True)
            )
            shown = f"{written:>9.5f}{deployed:>10.5f}{file_bytes(path) / whole:>9.3f}"
            print(f"{name:<36}{shown}{seconds:>9.1f}", flush=True)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=SAMPLES / "digits_cnn.onnx")
    parser.add_argument("data", type=Path, nargs="?", default=SAMPLES / "digits.npz")
    parser.add_argument("--preprocess")
    parser.add_argument("--scheme", nargs="+", default=["int8", "w4a8"])
    parser.add_argument("--calibration", type=int, default=None)
    parser.add_argument("--evaluation", type=int, default=400)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--skip", nargs="+", default=(), help="no variants whose name holds this")
    parser.add_argument("--images", type=Path, help="folder of images and labels.csv")
    parser.add_argument("--sentences", type=int, default=0, help="of MiniLM-L6")
    options = parser.parse_args()
    if options.images is not None or not options.sentences:
        static(options)
    if options.sentences:
        text(options.sentences)
    return 0


def static(options: argparse.Namespace) -> None:
    """A table for each scheme."""
    data, steps, count = options.data, options.preprocess, options.calibration or 128
    with TemporaryDirectory() as folder:  # quantisation starts from what convert makes
        path = Path(folder) / "m.onnx"
        if options.images is not None:
            import run

            path = run.export(CACHE, Path(folder))
            data, steps, count = (
                options.images,
                run.PREPROCESS,
                options.calibration or run.CALIBRATION,
            )
        else:
            convert(options.model, path, quiet=True)
        model = ir.load(path)
        ir.external_data.load_to_model(model)
    inputs = open_engine("onnxruntime", model).inputs
    first, rest = open_dataset(str(data), inputs, preprocess=steps).split(count, 0)
    parts = [
        list(first.batches(options.batch)),
        list(islice(rest.batches(options.batch), -(-options.evaluation // options.batch))),
    ]
    for scheme in options.scheme:
        name = "EfficientNet-Lite0" if options.images is not None else options.model.stem
        print(f"{name}, {scheme}: {count} samples calibrate")
        print(f"{'':<36}{'SQNR dB':>8}{'agree %':>9}{'drop':>7}{'seconds':>9}")
        for row in rows(model, scheme, (parts[0], parts[1]), options.steps, options.skip):
            label, decibels, same, drop, seconds = row
            shown = f"{decibels:>8.2f}{100 * same:>9.2f}{100 * drop:>7.2f}{seconds:>9.1f}"
            print(f"{label:<36}{shown}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
