"""Channels that stay make up for those that go: what reads them is fitted again.

The weights W of a layer become W' of the kept inputs x_k that minimises E[(W x - W' x_k)^2], on
the moments of real inputs, and the bias takes the mean (He, Zhang, Sun 2017, "Channel pruning for
accelerating very deep neural networks", section 3.1, there on samples).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.base import is_op
from quant.gptq import DAMPING
from quant.moments import Watch, rows_of, weight_of
from quant.prune.unstructured import correct_bias, has_bias
from quant.prune.weights import weights_of
from quant.weight_only import observe_values

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from quant.moments import Moments
    from quant.prune.channels import Channels
    from quant.prune.weights import Weight

    Array = np.ndarray[Any, Any]


def refit(
    model: ir.Model,
    channels: Channels,
    removed: Collection[int],
    feeds: Iterable[Mapping[str, Array]],
) -> None:
    """Let the layers of a model, which is whole still, not need these channels, in place.

    Conv without groups, Gemm and MatMul are fitted; the columns of what goes become zero.

    Args:
        model: the one that `channels` was traced on.
        channels: its channels.
        removed: classes.
        feeds: inputs.

    """
    kept = {w.name: _kept(w, channels, removed) for w in weights_of(model)[0] if _can(w)}
    found = [w for w in weights_of(model)[0] if w.name in kept and not kept[w.name].all()]
    watch = Watch(w.site.node for w in found)
    observe_values(model, feeds, watch)
    for weight in found:
        met = watch.moments.get(weight.name)
        if met is not None and met.rows:
            _fit(weight, kept[weight.name], met)


def _can(weight: Weight) -> bool:
    node, value = weight.site.node, weight.site.weight
    grouped = is_op(node, "Conv") and node.attributes.get_int("group", 1) > 1
    return weight.is_product and not grouped and len(list(value.uses())) == 1


def _kept(weight: Weight, channels: Channels, removed: Collection[int]) -> Array:
    """Which entries of a row stay."""
    size = weight.array.shape[weight.inner]
    atoms = channels.constants.get((weight.name, weight.inner))
    mask = np.ones(size, bool)
    if atoms is not None:
        mask = ~np.isin(channels.classes(atoms), list(removed))
    rows = rows_of(weight.site.node, weight.array)
    return np.repeat(mask, rows.shape[2] // size)


def _fit(weight: Weight, kept: Array, met: Moments) -> None:
    node, array = weight.site.node, weight.array
    second = (met.centred if has_bias(weight) else met.second)[0]
    damping = DAMPING * np.trace(second) / len(second) or 1.0
    inner = second[np.ix_(kept, kept)] + damping * np.eye(int(kept.sum()))
    rows = rows_of(node, array)[0].astype(np.float64)
    wanted = rows @ second[:, kept] + damping * rows[:, kept]  # of nothing removed: the same
    fitted = np.zeros(rows.shape, np.float32)
    fitted[:, kept] = np.linalg.solve(inner, wanted.T).T
    new = weight_of(node, fitted[None], array.shape)
    correct_bias(weight, new, met)
    weight.site.weight.const_value = ir.tensor(new, name=weight.name)
