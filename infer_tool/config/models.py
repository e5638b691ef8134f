"""What the commands accept that turn a model into another without learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the command line reads these annotations at run time

from infer_tool.config.parts import (
    DEFAULT_CALIB_SAMPLES,
    Data,
    Evaluated,
    Explain,
    Gates,
    ImportOptions,
    Output,
    Shapes,
    SizeGate,
    Talk,
    Timing,
)
from passes.config import OptimizeConfig
from quant.config import QuantizeConfig
from quant.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Convert(Talk, Output, ImportOptions, Shapes, SizeGate, Explain, OptimizeConfig):
    """Any source to optimised, verified ONNX."""

    source: str = field(
        metadata={
            "help": "A model of any format that `infertool doctor --formats` lists.",
            "positional": True,
        }
    )
    optimize: bool = field(
        default=True,
        metadata={"help": "Run the exact passes.", "flags": ("--optimize/--no-optimize",)},
    )
    to: str = field(
        default="onnx", metadata={"help": "What to write: onnx, or c for a folder of C sources."}
    )
    isa: str = field(
        default="auto",
        metadata={
            "help": "Instructions of emitted C: avx512, avx2, sse, neon, dotprod, scalar. Default: "
            "the best of this machine, or the smallest of --target."
        },
    )
    target: str = field(
        default="",
        metadata={
            "help": "Machine that emitted C is built for, e.g. aarch64-linux, wasm32-wasi. "
            "Default: this one.",
            "metavar": "TRIPLE",
        },
    )
    build: bool = field(
        default=False,
        metadata={"help": "Also compile emitted C to a shared and a static library."},
    )
    compiler: str = field(
        default="auto", metadata={"help": "Compiler of emitted C: zig, gcc, clang, cc."}
    )
    precision: str = field(
        default="fp32",
        metadata={
            "help": "Products with constant weights in emitted C: fp32, or bf16, which keeps the "
            "weights in half the bytes and needs --isa avx512 and a processor with avx512_bf16."
        },
    )
    tune: bool = field(
        default=False,
        metadata={
            "help": "Measure the algorithms and tiles of every layer of emitted C on this machine "
            "and take the fastest; the record is tuning.json in the folder."
        },
    )
    tuning: Path | None = field(
        default=None,
        metadata={"help": "A tuning.json of --tune to take the choices from.", "metavar": "FILE"},
    )


@dataclass(frozen=True, kw_only=True)
class Optimize(Talk, Output, ImportOptions, Shapes, Data, SizeGate, Explain, OptimizeConfig):
    """Exact graph passes; the outputs stay the same."""

    model: str = field(metadata={"help": "An ONNX file.", "positional": True})


@dataclass(frozen=True, kw_only=True)
class Quantize(
    Talk, Output, ImportOptions, Shapes, Data, Evaluated, Gates, Timing, TrainConfig, QuantizeConfig
):
    """Quantise, measure, and keep the limits."""

    train: bool = field(
        default=False,
        metadata={
            "help": "Train a static scheme with its rounding in place, on --data; the options from "
            "--epochs to --checkpoint are for that."
        },
    )

    model: str = field(
        metadata={"help": "An ONNX file or any other source of convert.", "positional": True}
    )
    calib: str | None = field(
        default=None,
        metadata={
            "help": "Calibration samples, not a part of --data; 'synthetic' for random ones.",
            "metavar": "DATA",
        },
    )
    calib_samples: int = field(
        default=DEFAULT_CALIB_SAMPLES,
        metadata={"help": "Samples for calibration, from --data or --calib.", "min": 1},
    )
    target_cpu: str | None = field(
        default=None,
        metadata={
            "help": "Also compute the result as this processor does and warn where that differs "
            "(avx2 saturates products of uint8 and int8); see --reduce-range, --activations.",
            "metavar": "CPU",
        },
    )
    explain: bool = field(
        default=False, metadata={"help": "Show every node that stays in float, and why."}
    )
