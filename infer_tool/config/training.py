"""What the commands accept that train."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from infer_tool.config.parts import (
    Data,
    DropGate,
    Evaluated,
    Explain,
    ImportOptions,
    Output,
    Shapes,
    Talk,
    Timing,
)
from quant.binarize.config import BinarizeConfig
from quant.cluster.config import ClusterConfig
from quant.distill.config import DistillConfig
from quant.factorize.config import FactorizeConfig
from quant.prune.config import PruneConfig
from quant.train.config import NormalConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


def _metadata_of(config: type[Any], name: str) -> Mapping[str, Any]:
    """Of an option whose default is another one in a command."""
    return next(f.metadata for f in fields(config) if f.name == name)


@dataclass(frozen=True, kw_only=True)
class Compress(Talk, Output, ImportOptions, Shapes, Data, Evaluated, DropGate, Timing, TrainConfig):
    """What all methods that train have in common."""

    model: str = field(
        metadata={"help": "An ONNX file or any other source of convert.", "positional": True}
    )
    seed: int = field(default=0, metadata={"help": "Seed of every random choice.", "min": 0})


@dataclass(frozen=True, kw_only=True)
class Prune(Compress, Explain, NormalConfig, PruneConfig):
    """Remove channels or weights, train what is left, measure, and keep the limits."""


def _rate(default: float) -> float:
    """The option of the learning rate for methods that start near their source."""
    (option,) = (f for f in fields(TrainConfig) if f.name == "learning_rate")
    found: float = field(default=default, metadata=option.metadata)
    return found


@dataclass(frozen=True, kw_only=True)
class Cluster(Compress, Explain, ClusterConfig):
    """Give weights few values, train them, measure, and keep the limits."""

    learning_rate: float = _rate(0.001)


@dataclass(frozen=True, kw_only=True)
class Factorize(Compress, Explain, FactorizeConfig):
    """Cut layers into two of low rank, train them, measure, and keep the limits."""

    learning_rate: float = _rate(0.002)


@dataclass(frozen=True, kw_only=True)
class Distill(Compress, Explain, NormalConfig, DistillConfig):
    """Train a smaller student to imitate its teacher."""

    model: str = field(metadata={"help": "The teacher.", "positional": True})


@dataclass(frozen=True, kw_only=True)
class Binarize(Compress, Explain, NormalConfig, BinarizeConfig):
    """Make weights, or weights and activations, one bit, train them, and keep the limits."""

    epochs: int = field(default=30, metadata=_metadata_of(TrainConfig, "epochs"))
    learning_rate: float = field(default=0.01, metadata=_metadata_of(TrainConfig, "learning_rate"))
