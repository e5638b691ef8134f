"""From the largest decision down to the smallest, each step where it costs least per byte.

For noise that adds up this is the lower convex hull of size and noise: no other decision of the
same size has less of it, up to one step (Everett 1963, on Lagrange multipliers for such choices).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant.search.choice import FLOAT_BITS, Choice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quant.search.choice import Assignment, Layer
    from quant.search.noise import Noise

BYTE = 8
CHANNEL_BYTES = 4  # a scale for each channel
UNPACKING_BYTES = 600  # the nodes that spread packed weights, with their names


@dataclass(frozen=True)
class Step:
    """A layer gets another format: so many bytes less, so much noise more."""

    name: str
    choice: Choice
    saved: float
    noise: float


@dataclass(frozen=True)
class Ladder:
    """Decisions that shrink step by step from `top`."""

    top: Assignment
    steps: tuple[Step, ...]

    def __len__(self) -> int:
        """The number of decisions."""
        return len(self.steps) + 1

    def at(self, index: int) -> dict[str, Choice]:
        """The decision after `index` steps."""
        result = dict(self.top)
        for step in self.steps[:index]:
            result[step.name] = step.choice
        return result

    def saved(self, index: int) -> float:
        """Bytes that `index` steps save, about."""
        return sum(step.saved for step in self.steps[:index])


def ladder(top: Assignment, noise: Noise) -> Ladder:
    """Steps of all layers, those of the least noise per byte first."""
    steps = [s for name, choice in top.items() for s in _hull(name, choice, noise)]
    order = {name: place for place, name in enumerate(top)}
    steps.sort(key=lambda s: (s.noise / s.saved, order[s.name], -s.choice.bits))
    return Ladder(top, tuple(steps))


def fill(low: Assignment, top: Assignment, noise: Noise, room: float) -> dict[str, Choice]:
    """Give bytes that are left back to the layers where they save most noise."""
    result = dict(low)
    while better := _best_raise(result, top, noise, room):
        result[better.name] = better.choice
        room += better.saved
    return result


def _best_raise(now: Assignment, top: Assignment, noise: Noise, room: float) -> Step | None:
    raises = [s for name in now for s in _raises(name, now[name], top[name], noise)]
    fitting = [s for s in raises if -s.saved <= room and s.noise < 0]
    return min(fitting, key=lambda s: s.noise / -s.saved, default=None)


def _raises(name: str, now: Choice, top: Choice, noise: Noise) -> Iterator[Step]:
    """Every format between the one in use and that of the top."""
    layer, before = noise.space.layers[name], noise.of(name, now)
    for bits in layer.bits[now.compute]:
        if now.bits < bits <= top.bits:
            choice = Choice(now.compute, bits)
            grown = weight_bytes(layer, choice) - weight_bytes(layer, now)
            if grown > 0:
                yield Step(name, choice, -grown, noise.of(name, choice) - before)


def weight_bytes(layer: Layer, choice: Choice) -> float:
    """What the weights of a layer take in the file, about."""
    if choice.bits == FLOAT_BITS:
        return layer.size * FLOAT_BITS / BYTE
    packed = UNPACKING_BYTES if choice.bits < BYTE else 0
    return layer.size * choice.bits / BYTE + layer.channels * CHANNEL_BYTES + packed


def _hull(name: str, top: Choice, noise: Noise) -> list[Step]:
    """The formats of a layer that are worth it: each next one saves at a higher price."""
    layer = noise.space.layers[name]
    steps: list[Step] = []
    now = top
    while True:
        options = [
            Step(name, choice, saved, noise.of(name, choice) - noise.of(name, now))
            for bits in layer.bits[top.compute]
            if bits < now.bits
            and (choice := Choice(top.compute, bits))
            and (saved := weight_bytes(layer, now) - weight_bytes(layer, choice)) > 0
        ]
        if not options:
            return steps
        best = min(options, key=lambda s: (s.noise / s.saved, s.choice.bits))
        steps.append(best)
        now = best.choice
