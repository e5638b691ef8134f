"""Options of the exact passes. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig:
    """What the pipeline runs and how exact it must be."""

    level: int = field(
        default=2,
        metadata={
            "help": "0 checks the structure only, 1 cleans (dead code, duplicates, constants), "
            "2 also fuses, which may round in another place, 3 also runs onnxsim.",
            "min": 0,
            "max": 3,
        },
    )
    passes: str = field(
        default="",
        metadata={
            "help": "Passes to run, comma separated; '-name' leaves one out. Wins over --level. "
            "Default: all of the level.",
            "metavar": "A,B,-C",
        },
    )
    opset: int = field(
        default=0,
        metadata={
            "help": "Raise the model to this opset first, for operators that come later: 23 has "
            "Attention and RMSNormalization. Default: leave it.",
            "min": 0,
            "max": 26,
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
