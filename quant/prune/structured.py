"""Structured pruning: whole channels go, the tensors become really smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from passes.base import Refusal
from passes.graph import forget_names
from passes.infer_shapes import InferShapes
from passes.remove_unused import RemoveUnused
from passes.verify import verify
from quant.prune.budget import choose, choose_evenly
from quant.prune.channels import trace
from quant.prune.importance import by_activation, by_magnitude, by_taylor
from quant.prune.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from quant.prune.channels import Channels
    from quant.prune.config import Importance
    from quant.prune.importance import Loss

    Array = np.ndarray[Any, Any]
    Batch = tuple[Mapping[str, Array], Array | None]


def prune_channels(
    model: ir.Model,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    importance: Importance,
    target: float,
    counted: str,
    multiple: int,
) -> tuple[ir.Model, tuple[Refusal, ...]]:
    """A copy of the model with fewer channels, and why the channels that stay had to.

    Args:
        model: optimised, constants as initialisers, nodes named.
        batches: samples for the importance (and labels, where the loss wants them).
        loss: for `taylor`, of a trainable module.
        importance: taylor, magnitude or activation.
        target: the share that may stay, 0 to 1.
        counted: macs or parameters.
        multiple: layers keep a multiple of this many channels.

    Raises:
        UsageError: the budget cannot be met.

    """
    copy = model.clone()
    forget_names(copy)
    channels = trace(copy)
    if importance == "taylor":
        scores = by_taylor(copy, channels, batches, loss)
    elif importance == "activation":
        scores = by_activation(copy, channels, [feeds for feeds, _ in batches])
    else:
        scores = by_magnitude(copy, channels)
    removed = choose(copy, channels, scores, target=target, counted=counted, multiple=multiple)
    return _without(copy, channels, removed)


def narrow_layers(
    model: ir.Model, share: float, multiple: int
) -> tuple[ir.Model, tuple[Refusal, ...]]:
    """A copy whose layers all keep this share of their channels, those of the largest weights.

    Raises:
        UsageError: no layer can become smaller.

    """
    copy = model.clone()
    forget_names(copy)
    channels = trace(copy)
    removed = choose_evenly(channels, by_magnitude(copy, channels), share, multiple)
    return _without(copy, channels, removed)


def _without(
    copy: ir.Model, channels: Channels, removed: set[int]
) -> tuple[ir.Model, tuple[Refusal, ...]]:
    reasons = sorted(set(channels.pinned.values()))
    shrink(copy, channels, removed)
    RemoveUnused().apply(copy)
    InferShapes().apply(copy)
    verify(copy)
    return copy, tuple(Refusal("-", "-", reason) for reason in reasons)
