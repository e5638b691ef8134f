"""What to try: ways of computing from the fastest on, each from its most exact decision down."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from quant.search.choice import HALF_BITS, Choice
from quant.search.ladder import Ladder, fill, ladder
from quant.search.noise import Noise, measure_noise
from quant.search.space import uniform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from quant.search.choice import Assignment
    from quant.search.space import Space

CLEAR_DB = 20.0  # a hundredth of the signal is noise: more of it asks for another way of computing
MOST_TRIES = 6  # models made to meet a size; the estimate is corrected by each
MOST_FLOAT = 0.75  # of the layers; with more of them in float all can be
EQUAL = 1e-9  # 2 of 400 samples against 0.5 % is equal, not larger


@dataclass(frozen=True)
class Limits:
    """What the user asked for; None is no limit."""

    drop: float | None = None
    sqnr_db: float | None = None
    size: int | None = None
    latency_ms: float | None = None

    @property
    def asks_accuracy(self) -> bool:
        """Is there a limit on the loss?"""
        return self.drop is not None or self.sqnr_db is not None


@dataclass(frozen=True)
class Point:
    """A decision that was measured."""

    assignment: Assignment
    bytes: int
    drop: float | None
    sqnr_db: float
    latency_ms: float | None = None

    @property
    def loss(self) -> tuple[float, float]:
        """Smaller is better: the drop of the metric, then the noise."""
        return (0.0 if self.drop is None else self.drop, -self.sqnr_db)


class Judge(Protocol):
    """Who measures decisions."""

    def measure(self, assignment: Assignment) -> Point:
        """Make the model, run it."""
        ...

    def size(self, assignment: Assignment) -> int:
        """Bytes of the model's file."""
        ...

    def noise(self, name: str, make: Callable[[], ir.Model]) -> float:
        """Noise over signal at the outputs of a model, under a name to remember it by."""
        ...


def excess(point: Point, limits: Limits) -> dict[str, float]:
    """How far a point is beyond each missed limit, as a share of the limit."""
    found = {
        "max-drop": _over(math.nan if point.drop is None else point.drop, limits.drop),
        "min-sqnr": _over(-point.sqnr_db, None if limits.sqnr_db is None else -limits.sqnr_db),
        "max-size": _over(point.bytes, limits.size),
        "max-latency": _over(
            math.nan if point.latency_ms is None else point.latency_ms, limits.latency_ms
        ),
    }
    return {name: share for name, share in found.items() if share is not None}


def _over(value: float, limit: float | None) -> float | None:
    """None within the limit; what is not a number is not within it."""
    if limit is None or value <= limit + EQUAL:
        return None
    return math.inf if math.isnan(value) else (value - limit) / max(abs(limit), 1e-3)


def best_of(points: Sequence[Point], limits: Limits) -> Point | None:
    """Of the points within all limits the most exact one, or the smallest when size has no limit.

    None when no point is within them.
    """
    fitting = [p for p in points if not excess(p, limits)]
    if limits.size is None and limits.asks_accuracy:
        return min(fitting, key=lambda p: (p.bytes, p.loss), default=None)
    return min(fitting, key=lambda p: (p.loss, p.bytes), default=None)


def nearest(points: Sequence[Point], limits: Limits) -> Point:
    """The point whose worst miss is the smallest."""
    return min(points, key=lambda p: (max(excess(p, limits).values(), default=0.0), p.loss))


@dataclass
class Plan:
    """One search; `points` grows while it runs, so that whoever stops it has them."""

    space: Space
    judge: Judge
    limits: Limits
    points: list[Point] = field(default_factory=list)
    noise: Noise = field(init=False)

    def __post_init__(self) -> None:
        """Nothing was measured yet."""
        self.noise = Noise(self.space)

    def run(self) -> Point | None:
        """Search; the best point within all limits, None when there is none."""
        self._measure(next(self._tops()))  # something to answer with when time runs out
        measure_noise(self.noise, self.judge.noise)
        ladders: list[tuple[Point, Ladder]] = []
        for top in self._tops():
            point, steps = self._measure(top), ladder(top, self.noise)
            ladders.append((point, steps))
            if self._clear(point) and self._descend(point, steps):
                return best_of(self.points, self.limits)
        self._show_nearest(ladders)
        return best_of(self.points, self.limits)

    def _show_nearest(self, ladders: list[tuple[Point, Ladder]]) -> None:
        """Nothing keeps all limits: what is the smallest that is exact enough, or fits at all?"""
        exact = [(p, s) for p, s in ladders if self._clear(p)]
        point, steps = min(exact or ladders, key=lambda found: found[0].loss)
        if exact and self.limits.asks_accuracy:
            self._smallest(steps)
        elif not exact and self.limits.size is not None:
            self._at_size(point, steps, self.limits.size)

    def _tops(self) -> Iterator[dict[str, Choice]]:
        """The most exact decision of each way of computing, the fastest first."""
        computes = {c for layer in self.space.layers.values() for c in layer.bits}
        if "int8" in computes:
            whole = uniform(self.space, "int8", 8)
            yield whole
            yield from self._mixed(whole)
        if "dynamic" in computes:
            yield uniform(self.space, "dynamic", 8)
        yield uniform(self.space, "float", 8)
        yield uniform(self.space, "float", HALF_BITS)

    def _mixed(self, whole: dict[str, Choice]) -> Iterator[dict[str, Choice]]:
        """Without the layers whose activations cost most, 1, 2, 4, ..., and their neighbours.

        A float layer between integer ones gains nothing: what it reads and writes is rounded still.
        """
        cost = self.noise.activations
        inside = [n for n, c in whole.items() if c.compute == "int8"]
        ranked = sorted(range(len(inside)), key=lambda place: -cost.get(inside[place], 0.0))
        count = 1
        while True:
            places = {p + step for p in ranked[:count] for step in (-1, 0, 1)}
            names = [n for place, n in enumerate(inside) if place in places]
            if len(names) > len(inside) * MOST_FLOAT:
                return
            yield whole | dict.fromkeys(names, Choice("float", 8))
            count *= 2

    def _clear(self, top: Point) -> bool:
        """Is there a loss left to spend?"""
        missed = excess(top, self.limits)
        if "max-latency" in missed or "max-drop" in missed or "min-sqnr" in missed:
            return False
        return self.limits.asks_accuracy or top.sqnr_db >= CLEAR_DB

    def _descend(self, top: Point, steps: Ladder) -> bool:
        """Go down as far as the limits want; is the result within them?"""
        if self.limits.size is not None and top.bytes > self.limits.size:
            return not excess(self._at_size(top, steps, self.limits.size), self.limits)
        if self.limits.size is None and self.limits.asks_accuracy:
            self._smallest(steps)
        return True

    def _smallest(self, steps: Ladder) -> None:
        """The last decision of the ladder that is exact enough, by halving."""
        good, bad = 0, len(steps)
        while bad - good > 1:
            middle = (good + bad) // 2
            missed = excess(self._measure(steps.at(middle)), self.limits)
            inexact = {"max-drop", "min-sqnr"} & set(missed)
            good, bad = (good, middle) if inexact else (middle, bad)

    def _at_size(self, top: Point, steps: Ladder, limit: int) -> Point:
        """The largest decision of the ladder that fits, its room used up."""
        beyond, chosen = 0.0, steps.at(len(steps) - 1)
        for _ in range(MOST_TRIES):
            index = self._index(steps, top.bytes + beyond - limit)
            low = steps.at(index)
            room = limit - (top.bytes + beyond - steps.saved(index))
            chosen = fill(low, steps.top, self.noise, room) if room > 0 else low
            size = self.judge.size(chosen)
            if size <= limit:
                break
            beyond += size - limit
        return self._measure(chosen)

    def _index(self, steps: Ladder, wanted: float) -> int:
        """The first decision that saves so many bytes, or the last of all."""
        return next((i for i in range(len(steps)) if steps.saved(i) >= wanted), len(steps) - 1)

    def _measure(self, assignment: Assignment) -> Point:
        for point in self.points:
            if point.assignment == assignment:
                return point
        self.points.append(self.judge.measure(assignment))
        return self.points[-1]
