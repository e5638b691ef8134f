"""Options of binarisation. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Weights = Literal["binary", "ternary"]
Activations = Literal["none", "binary"]


@dataclass(frozen=True, kw_only=True)
class BinarizeConfig:
    """What becomes one bit, and which layers stay."""

    weights: Weights = field(
        default="binary", metadata={"help": "binary: -1 and 1; ternary: -1, 0 and 1 in 2 bits."}
    )
    activations: Activations = field(
        default="none",
        metadata={"help": "none: only weights; binary: what a layer reads is -1 and 1 too."},
    )
    ends: bool = field(
        default=False,
        metadata={"help": "Also the first and the last layer.", "flags": ("--ends",)},
    )
    rise: float = field(
        default=0.6,
        metadata={
            "help": "Share of the epochs in which layers become binary, a little with each step.",
            "min": 0,
            "max": 1,
        },
    )
    min_products: int = field(
        default=48,
        metadata={
            "help": "Layers that sum fewer products for an output stay in float: its scale and "
            "bias outweigh so few bits.",
            "min": 1,
        },
    )
    exclude: tuple[str, ...] = field(
        default=(), metadata={"help": "Node that stays in float. Repeat for more."}
    )
