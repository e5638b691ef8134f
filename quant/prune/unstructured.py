"""Unstructured and N:M pruning: single elements of the weights become zero.

How many each weight keeps follows from the magnitudes of all (`quant.prune.shares`), which of them
from the method: magnitude; movement, scores that training has learned (`quant.prune.movement`);
wanda, |w| times the norm of its input, in each row of its own (Sun et al. 2023, "A simple and
effective pruning approach for large language models"); or sparsegpt (`quant.prune.sparsegpt`).
What the layers then miss in the mean goes into their biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError
from passes.base import Refusal
from passes.graph import constant, replace_constant
from passes.match import argument
from quant.moments import Watch, rows_of, weight_of
from quant.prune.shares import kept_counts, largest, largest_of_rows
from quant.prune.sparsegpt import prune_rows
from quant.prune.weights import Weight, weights_of
from quant.weight_only import observe_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quant.moments import Moments
    from quant.prune.config import PruneMethod
    from quant.prune.pattern import Pattern

    Array = np.ndarray[Any, Any]

FROM_INPUTS = ("wanda", "sparsegpt")


@dataclass(frozen=True)
class Sparsified:
    """A model with zeros, where its weights are not zero by name, and what could not be done."""

    model: ir.Model
    masks: dict[str, Array]
    refusals: tuple[Refusal, ...]

    @property
    def sparsity(self) -> dict[str, float]:
        """The share of zeros of each weight."""
        return {n: float(1 - m.mean()) for n, m in self.masks.items()}


def sparsify(
    model: ir.Model,
    batches: Sequence[Mapping[str, Array]],
    *,
    budget: float | Pattern,
    method: PruneMethod,
    uniform: bool = False,
    scores: Mapping[str, Array] | None = None,
) -> Sparsified:
    """A copy of the model whose weights have this share of zeros, or this pattern.

    Args:
        model: constants as initialisers, nodes named.
        batches: inputs, for `wanda` and `sparsegpt` and for the biases; may be empty otherwise.
        budget: the share of the elements that go, 0 to 1, or the pattern of those that stay.
        method: see above.
        uniform: every weight loses the same share.
        scores: of `movement`, by weight; a weight without any is pruned by magnitude.

    Raises:
        ModelError: no weight can lose elements.
        UsageError: a weight would lose all of them; the inputs hold NaN.

    """
    copy = model.clone()
    pattern = None if isinstance(budget, float) else budget
    found, refusals = weights_of(copy, pattern)
    if not found:
        why = f": {refusals[0].reason}" if refusals else ""
        raise ModelError(f"the model has no weights that could be pruned{why}")
    counts: list[int | Pattern] = []
    if isinstance(budget, float):
        counts += kept_counts([w.array for w in found], budget, uniform=uniform)
    else:
        counts += [budget] * len(found)
    moments = _moments(copy, found, batches, products=method in FROM_INPUTS)
    masks = {}
    for weight, kept in zip(found, counts, strict=True):
        met = moments.get(weight.name)
        if met is None and method in FROM_INPUTS:
            refusals.append(_by_magnitude(weight, method))
        given = None if scores is None else scores.get(weight.name)
        new = _pruned(weight, kept, method, met, given)
        masks[weight.name] = new != 0
        if met is not None:
            correct_bias(weight, new, met)
        weight.site.weight.const_value = ir.tensor(new, name=weight.name)
    return Sparsified(copy, masks, tuple(refusals))


def _by_magnitude(weight: Weight, method: str) -> Refusal:
    node = weight.site.node
    reason = (
        f"{weight.name} is pruned by magnitude: {method} needs the moments of inputs, which are "
        "gathered for Conv, Gemm and MatMul of moderate size"
    )
    return Refusal(node.name or "?", node.op_type, reason)


def _moments(
    model: ir.Model,
    found: Sequence[Weight],
    batches: Sequence[Mapping[str, Array]],
    *,
    products: bool,
) -> dict[str, Moments]:
    """What the weights meet in the model as it is."""
    if not batches:
        return {}
    watch = Watch((w.site.node for w in found if w.is_product), products=products)
    observe_values(model, batches, watch)
    return {name: m for name, m in watch.moments.items() if m.rows}


def _pruned(
    weight: Weight,
    kept: int | Pattern,
    method: PruneMethod,
    met: Moments | None,
    scores: Array | None,
) -> Array:
    """The array with zeros."""
    array = weight.array
    if method == "sparsegpt" and met is not None:
        return _reconstructed(weight, kept, met)
    if method == "wanda" and met is not None:
        scores = _wanda(weight, met)
        if isinstance(kept, int):
            mask = largest_of_rows(rows_of(weight.site.node, scores), kept)
            return np.where(weight_of(weight.site.node, mask, array.shape), array, np.float32(0))
    if scores is None:
        scores = np.abs(array)
    mask = largest(scores, kept) if isinstance(kept, int) else kept.mask(scores, weight.inner)
    return np.where(mask, array, np.float32(0))


def _wanda(weight: Weight, met: Moments) -> Array:
    rows = rows_of(weight.site.node, weight.array)
    norms = np.sqrt(np.diagonal(met.second, axis1=1, axis2=2))
    return weight_of(weight.site.node, np.abs(rows) * norms[:, None, :], weight.array.shape)


def _reconstructed(weight: Weight, kept: int | Pattern, met: Moments) -> Array:
    node, array = weight.site.node, weight.array
    second = met.centred if has_bias(weight) else met.second
    rows = rows_of(node, array)
    # Neighbours in a pattern are input channels: the taps of a kernel come first.
    taps = rows.shape[2] // array.shape[weight.inner] if node.op_type == "Conv" else 1
    order = np.arange(rows.shape[2]).reshape(-1, taps).T.reshape(-1)
    new = np.empty(rows.shape, np.float32)
    new[:, :, order] = prune_rows(rows[:, :, order], second[:, order][:, :, order], kept)
    return weight_of(node, new, array.shape)


def has_bias(weight: Weight) -> bool:
    """Can `correct_bias` change anything?"""
    return _bias(weight) is not None


def _bias(weight: Weight) -> Array | None:
    """A constant bias of one element for each output, where only this layer reads both."""
    node = weight.site.node
    value = argument(node, 2)
    found = None if node.op_type == "MatMul" else constant(value)
    shared = any(v is None or len(list(v.uses())) > 1 for v in (value, weight.site.weight))
    if found is None or shared:
        return None
    outputs = weight.array.shape[weight.site.channel % weight.array.ndim]
    scaled = node.attributes.get_float("beta", 1.0) != 0
    return found if found.size == outputs and scaled else None


def correct_bias(weight: Weight, new: Array, met: Moments) -> None:
    """Nagel et al. 2019, section 4.2: the mean of what is gone, E[(W - W') x]."""
    node, bias = weight.site.node, _bias(weight)
    if bias is None:
        return
    missed = rows_of(node, weight.array.astype(np.float64) - new)
    shift = np.einsum("gok,gk->go", missed, met.mean).reshape(bias.shape)
    scale = node.attributes.get_float("alpha", 1.0) / node.attributes.get_float("beta", 1.0)
    replace_constant(node, 2, (bias + scale * shift).astype(bias.dtype))
