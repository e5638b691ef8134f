"""Which layers are cut, and to which ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.factorize.factors import Way

HALVINGS = 60


@dataclass(frozen=True)
class Option:
    """One form of a layer: what it costs, and the share of its outputs' variance that it loses."""

    way: Way | None  # None: as it is
    rank: int
    parameters: float
    macs: float
    lost: float

    def cost(self, counted: str) -> float:
        """Parameters or multiply-accumulates."""
        return self.macs if counted == "macs" else self.parameters


@dataclass
class Layer:
    """The forms of a layer, the whole one first; `weight` turns a loss into one of the model."""

    node: str
    options: list[Option] = field(default_factory=list)
    weight: float = 1.0


def within(layers: Sequence[Layer], counted: str, fixed: float, goal: float) -> list[Option]:
    """The forms of least total loss that cost at most `goal`, with `fixed` for the rest.

    A price of the cost is found by bisection at which each layer takes its own cheapest form; what
    is then left of the budget buys the largest gains that fit.

    Raises:
        UsageError: the budget is out of reach.

    """

    def at(price: float) -> list[Option]:
        return [
            min(layer.options, key=lambda o: layer.weight * o.lost + price * o.cost(counted))
            for layer in layers
        ]

    def cost(chosen: Sequence[Option]) -> float:
        return fixed + sum(o.cost(counted) for o in chosen)

    least = fixed + sum(min(o.cost(counted) for o in layer.options) for layer in layers)
    if least > goal:
        whole = fixed + sum(layer.options[0].cost(counted) for layer in layers)
        raise UsageError(
            f"{100 * goal / whole:.1f}% of the {counted} is asked for, the smallest ranks leave "
            f"{100 * least / whole:.1f}%; ask for more, or lower --multiple"
        )
    low, high = 0.0, 1.0
    while cost(at(high)) > goal:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if cost(at(middle)) <= goal else (middle, high)
    chosen = at(high)
    return _spent(layers, chosen, counted, goal - cost(chosen))


def _spent(
    layers: Sequence[Layer], chosen: Sequence[Option], counted: str, left: float
) -> list[Option]:
    """The rest of the budget goes to the largest gain that fits, again and again."""
    chosen = list(chosen)
    while True:
        better = [
            (layer.weight * (now.lost - o.lost), place, o)
            for place, (layer, now) in enumerate(zip(layers, chosen, strict=True))
            for o in layer.options
            if o.lost < now.lost and o.cost(counted) - now.cost(counted) <= left
        ]
        if not better:
            return chosen
        _, place, option = max(better, key=lambda b: b[0])
        left -= option.cost(counted) - chosen[place].cost(counted)
        chosen[place] = option


def above(layers: Sequence[Layer], energy: float) -> list[Option]:
    """The smallest form of each layer that keeps this share of its outputs' variance."""
    return [
        min(
            (o for o in layer.options if o.way is None or o.lost <= 1 - energy),
            key=lambda o: (o.parameters, o.macs, o.lost),
        )
        for layer in layers
    ]
