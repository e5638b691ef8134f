"""Options of factorisation. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class FactorizeConfig:
    """How much may stay, and what ranks are allowed."""

    target_params: str = field(
        default="",
        metadata={"help": "Share of the parameters that may stay, e.g. 60%.", "metavar": "SHARE"},
    )
    target_macs: str = field(
        default="",
        metadata={
            "help": "Share of the multiply-accumulates that may stay, e.g. 60%.",
            "metavar": "SHARE",
        },
    )
    energy: float = field(
        default=0.0,
        metadata={
            "help": "Instead of a share: every layer keeps this much of the variance of its "
            "outputs, e.g. 0.95.",
            "min": 0,
            "max": 1,
        },
    )
    multiple: int = field(default=4, metadata={"help": "Ranks are multiples of this.", "min": 1})
    exclude: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Node that stays as it is. Repeat for more.", "metavar": "NODE"},
    )
