"""Options of clustering. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Share = Literal["tensor", "channel"]


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How many values weights have, and which weights share them."""

    clusters: int = field(
        default=16,
        metadata={"help": "Values that the weights of a layer may have.", "min": 2, "max": 256},
    )
    per: Share = field(
        default="tensor",
        metadata={"help": "One set of values for each tensor, or for each output channel."},
    )
    exclude: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Node whose weights stay as they are. Repeat for more.",
            "metavar": "NODE",
        },
    )
