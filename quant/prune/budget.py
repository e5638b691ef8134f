"""Which channels go: the least important for what they cost, until the budget is met."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd, prod
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from passes.facts import macs_by_node

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import onnx_ir as ir

    from quant.prune.channels import Channels

    Array = np.ndarray[Any, Any]
    Place = tuple[str, int]
    Cost = Callable[["Kept"], float]
    Kept = dict[int, float]

KEPT_SHARE = 0.1  # no layer loses more than the rest of this


@dataclass
class Layer:
    """Classes of the same places: channels of one layer, or of layers that are tied together."""

    places: tuple[Place, ...]
    width: int = 1  # channels that a class has at least wherever it is, as a head has
    classes: list[int] = field(default_factory=list)  # the least important first
    removed: int = 0
    stuck: bool = False

    @property
    def share(self) -> float:
        """What is kept, 0 to 1."""
        return 1 - self.removed / len(self.classes)

    def next_count(self, multiple: int) -> int:
        """How many go together, so that what stays is a multiple; 0 when no more can.

        Of a narrow layer it is a smaller one, the power of two up to half of its width.
        """
        left = len(self.classes) - self.removed
        half = len(self.classes) * self.width // 2
        multiple = min(multiple, 1 << max(half.bit_length() - 1, 0))
        step = multiple // gcd(multiple, self.width)
        count = left % step or step
        least = max(1, round(KEPT_SHARE * len(self.classes)))
        return 0 if self.stuck or left - count < least else count


def layers_of(channels: Channels, importance: Mapping[int, float]) -> list[Layer]:
    """Groups of removable classes, each sorted by importance (ties by their order)."""
    places: dict[int, dict[Place, int]] = {}
    for place, atoms in channels.constants.items():
        for found in channels.classes(atoms):
            if found not in channels.pinned:
                seen = places.setdefault(int(found), {})
                seen[place] = seen.get(place, 0) + 1
    layers: dict[tuple[tuple[Place, int], ...], Layer] = {}
    for found in sorted(places):
        key = tuple(sorted(places[found].items()))
        layer = layers.setdefault(
            key, Layer(tuple(place for place, _ in key), min(c for _, c in key))
        )
        layer.classes.append(found)
    for layer in layers.values():
        layer.classes.sort(key=lambda c: importance.get(c, 0.0))
    return list(layers.values())


def choose(
    model: ir.Model,
    channels: Channels,
    importance: Mapping[int, float],
    *,
    target: float,
    counted: str,
    multiple: int,
) -> set[int]:
    """Classes to remove so that at most `target` (0 to 1) of the MACs or parameters stays.

    Greedy: of the next channels of each layer those go that lose the least importance for what
    they save. Each layer keeps a multiple of `multiple` channels.

    Raises:
        UsageError: the budget cannot be met; the text says how far it goes and what stays.

    """
    layers = layers_of(channels, importance)
    cost = (_macs if counted == "macs" else _parameters)(model, channels, layers)
    kept: Kept = dict.fromkeys(range(len(layers)), 1.0)
    goal = target * cost(kept)
    while (now := cost(kept)) > goal:
        best = _cheapest(layers, importance, kept, cost, multiple)
        if best is None:
            raise UsageError(_out_of_reach(channels, now / cost(dict.fromkeys(kept, 1.0)), target))
        layers[best].removed += layers[best].next_count(multiple)
        kept[best] = layers[best].share
    return {c for layer in layers for c in layer.classes[: layer.removed]}


def choose_evenly(
    channels: Channels, importance: Mapping[int, float], share: float, multiple: int
) -> set[int]:
    """Classes to remove so that every layer keeps this share, up to the next multiple.

    Raises:
        UsageError: no layer can become smaller.

    """
    gone: set[int] = set()
    for layer in layers_of(channels, importance):
        count = len(layer.classes)
        kept = min(count, max(1, -(-round(share * count) // multiple) * multiple))
        gone.update(layer.classes[: count - kept])
    if not gone:
        raise UsageError(
            f"no layer can keep {100 * share:g} % of its channels in multiples of {multiple}: "
            f"{_most_common(channels)}; lower --multiple"
        )
    return gone


def _cheapest(
    layers: list[Layer],
    importance: Mapping[int, float],
    kept: Kept,
    cost: Cost,
    multiple: int,
) -> int | None:
    """The layer whose next channels lose the least for what they save."""
    found: tuple[float, int] | None = None
    now = cost(kept)
    for number, layer in enumerate(layers):
        count = layer.next_count(multiple)
        if not count:
            continue
        share = 1 - (layer.removed + count) / len(layer.classes)
        saved = now - cost({**kept, number: share})
        lost = sum(
            importance.get(c, 0.0) for c in layer.classes[layer.removed : layer.removed + count]
        )
        if saved > 0 and (found is None or (lost / saved, number) < found):
            found = (lost / saved, number)
    return None if found is None else found[1]


def _out_of_reach(channels: Channels, reached: float, target: float) -> str:
    return (
        f"only {100 * reached:.1f} % is left to prune to, not {100 * target:.1f} %; most channels "
        f"that stay: {_most_common(channels)}; choose a larger budget or a smaller --multiple"
    )


def _most_common(channels: Channels) -> str:
    reasons = list(channels.pinned.values())
    return max(sorted(set(reasons)), key=reasons.count) if reasons else "layers are small already"


def _shares(channels: Channels, layers: list[Layer], atoms: Array) -> Callable[[Kept], float]:
    """What stays of a vector of atoms, as a function of what stays of each layer."""
    owner = {c: number for number, layer in enumerate(layers) for c in layer.classes}
    found = [owner.get(int(c), -1) for c in channels.classes(atoms)]
    counts = {number: found.count(number) for number in sorted(set(found))}
    fixed, total = counts.pop(-1, 0), max(len(found), 1)
    return lambda kept: (fixed + sum(n * kept[layer] for layer, n in counts.items())) / total


def _macs(model: ir.Model, channels: Channels, layers: list[Layer]) -> Cost:
    macs = macs_by_node(model)
    terms = [
        (p.share * macs.get(p.node, 0), [_shares(channels, layers, f) for f in p.factors])
        for p in channels.products
    ]
    traced = {p.node for p in channels.products}
    rest = sum(count for node, count in macs.items() if node not in traced)
    return lambda kept: rest + sum(n * prod(f(kept) for f in factors) for n, factors in terms)


def _parameters(model: ir.Model, channels: Channels, layers: list[Layer]) -> Cost:
    terms = []
    for name, value in model.graph.initializers.items():
        if value.const_value is None or value.const_value.size <= 1:
            continue
        axes = [atoms for (of, _), atoms in channels.constants.items() if of == name]
        terms.append((value.const_value.size, [_shares(channels, layers, a) for a in axes]))
    return lambda kept: sum(n * prod(f(kept) for f in factors) for n, factors in terms)
