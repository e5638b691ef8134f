"""Options of training. Imports nothing heavy: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - the command line reads these annotations at run time
from typing import Literal

Optimizer = Literal["adam", "sgd"]


@dataclass(frozen=True, kw_only=True)
class NormalConfig:
    """How far from its source a model learns."""

    batch_norm: bool = field(
        default=True,
        metadata={
            "help": "Train convolutions behind batch normalisation, folded into them before they "
            "are written; from batches of 8 on."
        },
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a graph is trained, whatever it is trained for."""

    epochs: int = field(default=10, metadata={"help": "Passes over the training data.", "min": 0})
    batch_size: int = field(
        default=64,
        metadata={"help": "Samples of a training step, where the model's batch is free.", "min": 1},
    )
    learning_rate: float = field(
        default=0.02,
        metadata={
            "help": "Largest step of a parameter relative to its own magnitude; it follows a "
            "cosine to 0.",
            "min": 0,
        },
    )
    warmup: float = field(
        default=0.05,
        metadata={
            "help": "Share of the steps in which the learning rate rises.",
            "min": 0,
            "max": 1,
        },
    )
    optimizer: Optimizer = field(
        default="adam", metadata={"help": "adam, or sgd with Nesterov momentum 0.9."}
    )
    weight_decay: float = field(
        default=0.0, metadata={"help": "Decay of weights, not of biases.", "min": 0}
    )
    label_weight: float | None = field(
        default=None,
        metadata={
            "help": "Share of the labels in the loss, 0 to 1; the rest imitates the source model. "
            "Default: 0.3 where there are labels, else 0.",
            "min": 0,
            "max": 1,
        },
    )
    temperature: float = field(
        default=2.0,
        metadata={"help": "Softens the classes of both models in that rest.", "min": 0.01},
    )
    augment: str = field(
        default="",
        metadata={
            "help": "file.py:function(feeds, generator) that returns changed feeds for training; "
            "the generator is a numpy.random.Generator.",
            "metavar": "FUNCTION",
        },
    )
    patience: int = field(
        default=0,
        metadata={
            "help": "Stop after this many epochs without a better metric; 0 never.",
            "min": 0,
        },
    )
    train_threads: int = field(
        default=1,
        metadata={
            "help": "Threads of training; 0 is all cores. More than one pays on large models and "
            "on a machine that does nothing else.",
            "min": 0,
        },
    )
    checkpoint: Path | None = field(
        default=None,
        metadata={
            "help": "Keep the state of training here after every epoch; where the file is "
            "there already, training goes on from it.",
            "metavar": "FILE",
        },
    )
