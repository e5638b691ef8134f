"""Options of quantisation. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Scheme = Literal["int8", "fp16"]
Calibration = Literal["minmax", "percentile", "entropy", "mse"]
Activations = Literal["uint8", "int8"]
Rounding = Literal["gptq", "nearest"]


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """What the numbers become, and how ranges are found."""

    scheme: Scheme = field(
        default="int8",
        metadata={"help": "int8: weights and activations, static. fp16: half precision."},
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
        default="gptq",
        metadata={
            "help": "How weights become integers: gptq keeps the outputs on the calibration data, "
            "nearest keeps the weights."
        },
    )
    bias_correction: bool = field(
        default=True,
        metadata={
            "help": "Take the mean error of quantised weights out of the biases.",
            "flags": ("--bias-correction/--no-bias-correction",),
        },
    )
    per_tensor: bool = field(
        default=False, metadata={"help": "One scale for each weight instead of each channel."}
    )
    exclude: tuple[str, ...] = field(
        default=(), metadata={"help": "Node that stays in float. Repeat for more."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of every random choice.", "min": 0})
