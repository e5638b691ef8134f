"""Options of the exact passes. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """What the pipeline runs and how exact it must be."""

    passes: str = field(
        default="",
        metadata={
            "help": "Passes to run, comma separated; '-name' leaves one out. Default: all.",
            "metavar": "A,B,-C",
        },
    )
    tolerance: float = field(
        default=1e-4,
        metadata={
            "help": "Largest error allowed, relative to the output's largest value.",
            "min": 0,
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of the inputs made for checks.", "min": 0})
