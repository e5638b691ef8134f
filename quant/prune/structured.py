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
from quant.prune.refit import refit
from quant.prune.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from quant.prune.channels import Channels
    from quant.prune.config import Importance
    from quant.prune.importance import Batch, Loss, Scores

    Array = np.ndarray[Any, Any]


def score_channels(
    model: ir.Model, batches: Sequence[Batch], loss: Loss, importance: Importance
) -> Scores:
    """How much each class of channels of a model matters.

    Args:
        model: optimised, constants as initialisers, nodes named.
        batches: samples for the importance (and labels, where the loss wants them).
        loss: for `taylor`, of a trainable module.
        importance: taylor, magnitude or activation.

    """
    channels = trace(model)
    if importance == "taylor":
        return by_taylor(model, channels, batches, loss)
    if importance == "activation":
        return by_activation(model, channels, [feeds for feeds, _ in batches])
    return by_magnitude(model, channels)


def prune_channels(
    model: ir.Model,
    scores: Scores,
    *,
    target: float,
    counted: str,
    multiple: int,
    feeds: Sequence[Mapping[str, Array]] = (),
) -> tuple[ir.Model, tuple[Refusal, ...]]:
    """A copy of the model with fewer channels, and why the channels that stay had to.

    Args:
        model: optimised, constants as initialisers, nodes named.
        scores: of `score_channels`, of this model.
        target: the share that may stay, 0 to 1.
        counted: macs or parameters.
        multiple: layers keep a multiple of this many channels.
        feeds: inputs to fit the layers on that read fewer channels; without any they are cut.

    Raises:
        UsageError: the budget cannot be met.

    """
    copy = model.clone()
    forget_names(copy)
    channels = trace(copy)
    removed = choose(copy, channels, scores, target=target, counted=counted, multiple=multiple)
    if feeds:
        refit(copy, channels, removed, feeds)
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
