"""A model of lower ranks, within a budget or at an energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from passes.base import Refusal
from passes.facts import facts
from quant.factorize.choose import above, within
from quant.factorize.layers import cuts, layers_of, weigh
from quant.factorize.split import split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from quant.factorize.choose import Layer, Option
    from quant.factorize.config import FactorizeConfig
    from quant.factorize.layers import Cut

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LowRank:
    """A factorised model, what each of its layers became, and why others stay."""

    model: ir.Model
    chosen: dict[str, Option]
    refusals: tuple[Refusal, ...]


def factorize(
    model: ir.Model,
    feeds: Sequence[Mapping[str, Array]],
    judged: Mapping[str, Array],
    heads: Sequence[str],
    config: FactorizeConfig,
    counted: str,
    target: float,
) -> LowRank:
    """A copy of a model whose layers are cut where it costs the outputs least.

    Args:
        model: optimised, constants as initialisers, nodes named.
        feeds: samples, to which the factors are fitted.
        judged: samples, by which layers are compared; the model runs once on them for each layer.
        heads: values by which a change of the model is judged.
        config: the options.
        counted: parameters or macs; "" to go by `config.energy`.
        target: the share of them that may stay, 0 to 1.

    Raises:
        UsageError: nothing can be cut, or the budget is out of reach.

    """
    found, refusals = cuts(model, feeds, config)
    layers = layers_of(model, found, config.multiple)
    if counted:
        weigh(model, found, layers, judged, list(heads))
        total = getattr(facts(model), counted)
        fixed = total - sum(layer.options[0].cost(counted) for layer in layers)
        chosen = within(layers, counted, fixed, target * total)
    else:
        chosen = above(layers, config.energy)
    if all(option.way is None for option in chosen):
        raise UsageError(f"no layer of this model can be cut{_first(refusals)}")
    result = split(model, zip(found, chosen, strict=True))
    reasons = [*refusals, *_whole(found, layers, chosen)]
    names = [layer.node for layer in layers]
    return LowRank(result, dict(zip(names, chosen, strict=True)), tuple(reasons))


def _first(refusals: Sequence[Refusal]) -> str:
    return f": node {refusals[0].node}: {refusals[0].reason}" if refusals else ""


def _whole(
    found: Sequence[Cut], layers: Sequence[Layer], chosen: Sequence[Option]
) -> list[Refusal]:
    """Why layers that could be cut were not."""
    refusals = []
    for cut, layer, option in zip(found, layers, chosen, strict=True):
        if option.way is None:
            small = len(layer.options) == 1
            reason = "no rank makes it smaller" if small else "cutting others costs less"
            refusals.append(Refusal(layer.node, cut.node.op_type, reason))
    return refusals
