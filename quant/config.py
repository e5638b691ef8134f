"""Options of quantisation. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Scheme = Literal[
    "int8", "w8a16", "w4a8", "w3a8", "w2a8", "w4a4", "w2a4",
    "int8-dynamic", "int8-weight", "uint8-weight", "int4-weight",
    "uint4-weight", "int3-weight", "uint3-weight", "int2-weight", "uint2-weight", "fp8-weight",
    "fp8-e5m2-weight", "fp16-weight", "bf16-weight", "palette8-weight", "palette7-weight",
    "palette6-weight", "palette5-weight", "palette4-weight", "palette3-weight", "palette2-weight",
    "palette1-weight", "fp16", "auto",
]  # fmt: skip
Calibration = Literal["minmax", "moving-average", "percentile", "entropy", "mse"]
Activations = Literal["uint8", "int8"]
Rounding = Literal["auto", "sequential", "gptq", "nearest"]
Algorithm = Literal["auto", "rtn", "mse", "hqq", "gptq", "awq"]
Reconstruct = Literal["none", "layer", "block"]


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """What the numbers become, and how ranges are found."""

    scheme: Scheme = field(
        default="int8",
        metadata={
            "help": "int8: weights and activations, static; w4a8, w3a8, w2a8: shorter weights in "
            "integer kernels; w8a16: finer activations, in float; w4a4, w2a4: 4-bit activations "
            "too, for --train. int8-dynamic: activations by their range in each run. "
            "FORMAT-weight: weights only. fp16: half precision. auto: the best for each layer "
            "within --max-drop, --min-sqnr, --max-size, --max-latency."
        },
    )
    block_size: int | None = field(
        default=None,
        metadata={
            "help": "Weights of MatMul and Gemm that share a scale, for FORMAT-weight; 0 for one "
            "scale for each channel. Default: 32 for integers of less than 8 bits, else 0.",
            "min": 0,
        },
    )
    smooth: float | None = field(
        default=None,
        metadata={
            "help": "How far outliers of activations move into the weights, 0 (not at all) to 1. "
            "Default: 0.7 for int8-dynamic, else 0.",
            "min": 0,
            "max": 1,
        },
    )
    algorithm: Algorithm = field(
        default="auto",
        metadata={
            "help": "How weights of FORMAT-weight are rounded; gptq and awq use the data. auto: "
            "gptq for integers of less than 8 bits, else mse."
        },
    )
    calibration: Calibration = field(
        default="mse", metadata={"help": "How the ranges of activations are found."}
    )
    percentile: float = field(
        default=99.99, metadata={"help": "Share of the values inside the range, for percentile."}
    )
    activations: Activations = field(
        default="uint8",
        metadata={
            "help": "Type of quantised activations. int8 is for ARM: on x86 ONNX Runtime fuses all "
            "of it only with the session entry session.qdqisint8allowed=1."
        },
    )
    rounding: Rounding = field(
        default="auto",
        metadata={
            "help": "How weights become integers: gptq keeps the outputs on the calibration data; "
            "sequential is gptq layer by layer behind the quantised layers before, whose errors it "
            "makes up for; nearest keeps the weights. auto: sequential for less than 8 bits, else "
            "gptq."
        },
    )
    bias_correction: bool = field(
        default=True,
        metadata={
            "help": "Take the mean error of quantised weights out of the biases.",
            "flags": ("--bias-correction/--no-bias-correction",),
        },
    )
    empirical_bias: bool = field(
        default=False,
        metadata={
            "help": "Then run the quantised model, layer by layer, and take what it still misses "
            "in the mean out of the biases."
        },
    )
    equalize: bool = field(
        default=False,
        metadata={
            "help": "Even out the channels between layers first, by powers of two, and move means "
            "into the next biases; the float model keeps its outputs."
        },
    )
    reconstruct: Reconstruct = field(
        default="none",
        metadata={
            "help": "Learn by gradient how weights are rounded, so that the outputs of each layer "
            "(AdaRound) or block (BRECQ) stay; needs torch."
        },
    )
    learn_ranges: bool = field(
        default=False,
        metadata={"help": "Learn the ranges of activations by gradient too; needs torch."},
    )
    steps: int = field(
        default=200, metadata={"help": "Steps of learning for each layer or block.", "min": 1}
    )
    per_tensor: bool = field(
        default=False, metadata={"help": "One scale for each weight instead of each channel."}
    )
    reduce_range: bool = field(
        default=False,
        metadata={
            "help": "Weights of static schemes in -64 to 64: sums of two products with uint8 then "
            "fit into the 16 bits that x86 processors without VNNI have for them."
        },
    )
    keep_functions: bool = field(
        default=False,
        metadata={
            "help": "Leave the unpacking of packed weights in functions of the domain infertool; "
            "without it every engine gets the standard operators."
        },
    )
    exclude: tuple[str, ...] = field(
        default=(), metadata={"help": "Node that stays in float. Repeat for more."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of every random choice.", "min": 0})
