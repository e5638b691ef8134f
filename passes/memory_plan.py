"""Where buffers lie in one arena: greedy by size, and the optimum of small graphs.

Greedy by size is algorithm 3 of Y. Pisarchyk and J. Lee, "Efficient Memory Management for Deep
Neural Net Inference", 2020, arXiv:2001.03288.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Times = np.ndarray[Any, np.dtype[np.int64]]

ALIGNMENT = 64  # a cache line; no vector instruction needs more
MAX_SEARCHED = 100  # buffers
MAX_STEPS = 20_000


@dataclass(frozen=True)
class Buffer:
    """Memory of some values, first the one that fills it, at times `first` to `last` included."""

    values: tuple[str, ...]
    size: int
    first: int
    last: int

    @property
    def padded(self) -> int:
        """The size up to the next aligned one."""
        return -(-self.size // ALIGNMENT) * ALIGNMENT

    def meets(self, other: Buffer) -> bool:
        """Do both live at some time?"""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryPlan:
    """The place of each buffer; `optimal` says that no plan has a smaller arena."""

    offsets: tuple[int, ...]
    arena: int
    optimal: bool


def largest_live_set(buffers: Sequence[Buffer]) -> tuple[int, int]:
    """Bytes of the largest set of buffers that live at once, and when: no arena is smaller."""
    changes: dict[int, int] = {}
    for buffer in buffers:
        changes[buffer.first] = changes.get(buffer.first, 0) + buffer.padded
        changes[buffer.last + 1] = changes.get(buffer.last + 1, 0) - buffer.padded
    live, best = 0, (0, 0)
    for time in sorted(changes):
        live += changes[time]
        if live > best[0]:
            best = (live, time)
    return best


def greedy_by_size(buffers: Sequence[Buffer]) -> MemoryPlan:
    """The largest first, each into the smallest gap that it fits in, or else on top."""
    first = np.array([b.first for b in buffers], np.int64)
    last = np.array([b.last for b in buffers], np.int64)
    sizes = np.array([b.padded for b in buffers], np.int64)
    offsets = np.full(len(buffers), -1, np.int64)
    for index, buffer in sorted(enumerate(buffers), key=lambda pair: -pair[1].padded):
        meets = (offsets >= 0) & (first <= buffer.last) & (last >= buffer.first)
        placed = zip(offsets[meets].tolist(), sizes[meets].tolist(), strict=True)
        offsets[index] = _smallest_gap(sorted(placed), buffer.padded)
    places = tuple(int(o) for o in offsets)
    arena = _arena(buffers, places)
    return MemoryPlan(places, arena, arena == largest_live_set(buffers)[0])


def _smallest_gap(placed: list[tuple[int, int]], size: int) -> int:
    top, best = 0, None
    for offset, length in placed:
        if offset - top >= size and (best is None or offset - top < best[0]):
            best = (offset - top, top)
        top = max(top, offset + length)
    return top if best is None else best[1]


def _arena(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    return max((o + b.padded for o, b in zip(offsets, buffers, strict=True)), default=0)


def best_plan(buffers: Sequence[Buffer], steps: int = MAX_STEPS) -> MemoryPlan:
    """Branch and bound from the greedy plan; the greedy one where there are too many buffers.

    Every plan can be pushed down until each buffer lies on the ground or on another one. Such a
    plan is built from the bottom up: in the order of the offsets, each buffer on top of those
    that it meets. So all orders are tried whose offsets do not fall. An order is left when at
    some time the height and the buffers to come are no less than the best arena.
    """
    greedy = greedy_by_size(buffers)
    if greedy.optimal or len(buffers) > MAX_SEARCHED:
        return greedy
    search = _Search(buffers, greedy, largest_live_set(buffers)[0], steps)
    search.descend(list(range(len(buffers))), 0)
    complete = search.steps > 0 or search.best.arena == search.bound
    return MemoryPlan(search.best.offsets, search.best.arena, complete)


@dataclass
class _Search:
    """The heights at the times when buffers appear, and what is still to be placed on them."""

    buffers: Sequence[Buffer]
    best: MemoryPlan
    bound: int
    steps: int
    heights: Times = field(init=False)
    pending: Times = field(init=False)

    def __post_init__(self) -> None:
        times = np.array(sorted({b.first for b in self.buffers}), np.int64)
        # Two buffers meet when both live at the time when the later one appears.
        starts = np.searchsorted(times, [b.first for b in self.buffers])
        ends = np.searchsorted(times, [b.last + 1 for b in self.buffers])
        self._spans = [slice(int(s), int(e)) for s, e in zip(starts, ends, strict=True)]
        self._offsets = [0] * len(self.buffers)
        self.heights = np.zeros(len(times), np.int64)
        self.pending = np.zeros(len(times), np.int64)
        for buffer, span in zip(self.buffers, self._spans, strict=True):
            self.pending[span] += buffer.padded

    def descend(self, left: list[int], floor: int) -> None:
        """Try every buffer that can be the next one, the lowest and largest first."""
        self.steps -= 1
        if not left:
            arena = _arena(self.buffers, self._offsets)
            self.best = MemoryPlan(tuple(self._offsets), arena, optimal=False)
            return
        for offset, index in self._candidates(left, floor):
            if self.steps <= 0 or self.best.arena == self.bound:
                return
            self._place(index, offset, [i for i in left if i != index])

    def _candidates(self, left: list[int], floor: int) -> list[tuple[int, int]]:
        """Offset and index; of buffers that are alike only one."""
        found: dict[tuple[int, int, int], tuple[int, int]] = {}
        for index in left:
            buffer = self.buffers[index]
            offset = int(self.heights[self._spans[index]].max())
            if offset >= floor:
                key = (buffer.padded, buffer.first, buffer.last)
                found.setdefault(key, (offset, index))
        return sorted(found.values(), key=lambda f: (f[0], -self.buffers[f[1]].padded))

    def _place(self, index: int, offset: int, left: list[int]) -> None:
        buffer, span = self.buffers[index], self._spans[index]
        before = self.heights[span].copy()
        self.heights[span] = offset + buffer.padded
        self.pending[span] -= buffer.padded
        if int((self.heights + self.pending).max()) < self.best.arena:
            self._offsets[index] = offset
            self.descend(left, offset)
        self.heights[span] = before
        self.pending[span] += buffer.padded
