"""Options of distillation. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Match = Literal["none", "auto"]


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How the student is made, and what it learns beside the outputs."""

    student: str = field(
        default="",
        metadata={
            "help": "The model to train: any source of convert, with the inputs and outputs of "
            "the teacher.",
            "metavar": "MODEL",
        },
    )
    shrink: float = field(
        default=0.0,
        metadata={
            "help": "Make the student of the teacher: all layers keep this share of their "
            "channels, e.g. 0.5.",
            "min": 0,
            "max": 1,
        },
    )
    drop_blocks: float = field(
        default=0.0,
        metadata={
            "help": "Make the student of the teacher: this share of the residual blocks goes whose "
            "input and output have the same shape, the least important first. Goes with --shrink.",
            "min": 0,
            "max": 1,
        },
    )
    multiple: int = field(
        default=8,
        metadata={"help": "With --shrink, layers keep a multiple of this many.", "min": 1},
    )
    hint: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Tensor of the student that learns one of the teacher, by their names. Repeat "
            "for more.",
            "metavar": "STUDENT=TEACHER",
        },
    )
    match: Match = field(
        default="none",
        metadata={
            "help": "auto pairs the last tensors of each spatial size of the two models, beside "
            "the pairs of --hint."
        },
    )
    feature_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the values of the pairs, through a learned projection where the "
            "widths differ. Default: 1 where there are pairs and no other weight.",
            "min": 0,
        },
    )
    attention_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of where the pairs are active, over their places.", "min": 0},
    )
    relation_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of distances and angles between the samples of a batch, in the pairs.",
            "min": 0,
        },
    )
