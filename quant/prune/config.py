"""Options of pruning. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Importance = Literal["taylor", "magnitude", "activation"]


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """What goes, how it is chosen, and how much may stay."""

    target_macs: str = field(
        default="",
        metadata={
            "help": "Share of the multiply-accumulates that may stay, e.g. 50%.",
            "metavar": "SHARE",
        },
    )
    target_params: str = field(
        default="",
        metadata={"help": "Share of the parameters that may stay, e.g. 50%.", "metavar": "SHARE"},
    )
    importance: Importance = field(
        default="taylor",
        metadata={
            "help": "What makes a channel important: taylor (its share of the loss on the data), "
            "magnitude of its weights, or activation."
        },
    )
    multiple: int = field(
        default=8,
        metadata={
            "help": "Layers keep a multiple of this many channels, which engines run fastest.",
            "min": 1,
        },
    )
    rounds: int = field(
        default=1,
        metadata={
            "help": "Prune in so many equal steps and train after each of them; the last has half "
            "of the epochs.",
            "min": 1,
        },
    )
