"""Options of pruning. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Importance = Literal["taylor", "magnitude", "activation"]
PruneMethod = Literal["magnitude", "movement", "wanda", "sparsegpt"]
Storage = Literal["sparse", "dense"]


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
    target_latency: str = field(
        default="",
        metadata={
            "help": "Share of the source's time on --engine that the result may take, e.g. 60%, "
            "or a time, e.g. 5ms: channels go until measured candidates keep it.",
            "metavar": "TIME",
        },
    )
    importance: Importance = field(
        default="taylor",
        metadata={
            "help": "What makes a channel important: taylor (its share of the loss on the data), "
            "magnitude of its weights, or activation."
        },
    )
    multiple: int = field(
        default=16,
        metadata={
            "help": "Layers keep a multiple of this many channels, which engines run fastest; "
            "narrow ones of a power of two up to half of their width.",
            "min": 1,
        },
    )
    rounds: int = field(
        default=1,
        metadata={
            "help": "Prune in so many steps and train after each of them; the last has half of the "
            "epochs.",
            "min": 1,
        },
    )
    sparsity: str = field(
        default="",
        metadata={
            "help": "Share of the weights' elements that become zero, e.g. 80%.",
            "metavar": "SHARE",
        },
    )
    pattern: str = field(
        default="",
        metadata={
            "help": "Of M neighbouring input channels N stay, e.g. 2:4 or 4:8.",
            "metavar": "N:M",
        },
    )
    method: PruneMethod = field(
        default="sparsegpt",
        metadata={
            "help": "Which elements go: those that the others make up for best (sparsegpt), the "
            "smallest (magnitude), the smallest times their inputs (wanda), or those that "
            "training moves to zero (movement). For --sparsity and --pattern."
        },
    )
    uniform: bool = field(
        default=False,
        metadata={
            "help": "With --sparsity, every layer loses the same share. Otherwise those lose more "
            "whose outputs change less."
        },
    )
    store: Storage = field(
        default="sparse",
        metadata={
            "help": "How zeros are stored: sparse (not at all; smaller files) or dense. Engines "
            "run both equally fast."
        },
    )
