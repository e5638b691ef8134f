"""A checkpoint: the state of training after an epoch, in one file without pickled code."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from quant.distill.config import DistillConfig
from quant.train.config import NormalConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]

# What a damaged .npz raises.
_DAMAGE = (ValueError, OSError, EOFError, KeyError)


@dataclass
class State:
    """Values after `epoch` epochs, those of the best epoch, and what the optimiser remembers."""

    epoch: int
    current: Arrays
    best: Arrays
    best_epoch: int
    best_metric: float
    stale: int = 0  # epochs since the metric was better than ever before
    optimizer: Arrays = field(default_factory=dict)


def identity(config: TrainConfig, start: Mapping[str, Array]) -> str:
    """A digest of the first values and of what steers training, which goes on only from its own.

    Where the result goes and how long it may take are free to change.
    """
    kinds = (TrainConfig, NormalConfig, DistillConfig)
    names = {f.name for kind in kinds for f in fields(kind)} - {"checkpoint", "train_threads"}
    options = {name: str(getattr(config, name, "")) for name in (*names, "seed", "data")}
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for name in sorted(start):
        digest.update(name.encode())
        digest.update(start[name].tobytes())
    return digest.hexdigest()


def save_state(path: Path, state: State, digest: str) -> None:
    """Write beside the old file and rename: a kill leaves one of the two, whole.

    Raises:
        UsageError: the file cannot be written.

    """
    head = [state.epoch, state.best_epoch, state.best_metric, state.stale, digest]
    arrays: Arrays = {"head": np.array(json.dumps(head))}
    for part in ("current", "best", "optimizer"):
        arrays |= {f"{part}/{name}": value for name, value in getattr(state, part).items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _write(file, arrays)
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"--checkpoint {path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(file: Any, arrays: Arrays) -> None:
    """Numbered: names of values hold characters that names of files may not."""
    numbered: Any = {f"v{i}": value for i, value in enumerate(arrays.values())}
    np.savez(file, names=np.array(list(arrays)), **numbered)


def load_state(path: Path, digest: str) -> State:
    """Read what `save_state` wrote.

    Raises:
        UsageError: no checkpoint, or one of another training.

    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {str(name): file[f"v{i}"] for i, name in enumerate(file["names"])}
        epoch, best_epoch, best_metric, stale, found = json.loads(str(arrays.pop("head")))
    except _DAMAGE as error:
        raise UsageError(f"--checkpoint {path}: not a checkpoint; name another file") from error
    if found != digest:
        raise UsageError(
            f"--checkpoint {path}: is of another model, data or options; remove it to start anew"
        )
    parts: dict[str, Arrays] = {"current": {}, "best": {}, "optimizer": {}}
    for name, value in arrays.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    return State(
        epoch, parts["current"], parts["best"], best_epoch, best_metric, stale, parts["optimizer"]
    )
