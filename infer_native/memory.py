"""One arena: which tensor lies where, by the lifetimes of the layers' order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from passes.memory_plan import Buffer, best_plan, largest_live_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infer_native.program import Program, Tensor
    from passes.memory_plan import MemoryPlan

ALIGNMENT = 64
TRIES = 1500  # orders of a search


@dataclass(frozen=True)
class Arena:
    """Offsets of tensors and of the scratch memory of layers, by their number; bytes in all.

    `bound` is the largest set of bytes that live at once: no plan for this order is smaller.
    """

    offsets: Mapping[Tensor, int]
    scratch: Mapping[int, int]
    size: int
    bound: int


def plan_arena(program: Program, external: set[Tensor], scratch: Sequence[int]) -> Arena:
    """Place what layers compute, save for `external` tensors, which the caller holds."""
    first: dict[Tensor, int] = {}
    last: dict[Tensor, int] = {}
    for time, layer in enumerate(program.layers):
        for tensor in layer.outputs:
            if tensor is not None and tensor.root not in external:
                first.setdefault(tensor.root, time)
                last[tensor.root] = time
        for tensor in layer.inputs:
            if tensor is not None and tensor.root in first:
                last[tensor.root] = time
    tensors = list(first)
    buffers = [Buffer((t.name,), max(t.nbytes, 1), first[t], last[t]) for t in tensors]
    times = [time for time, size in enumerate(scratch) if size]
    buffers += [Buffer((f"scratch {t}",), scratch[t], t, t) for t in times]
    plan, bound = best_plan(buffers), largest_live_set(buffers)[0]
    offsets, size = (plan.offsets, plan.arena) if plan.optimal else squeezed(buffers, plan, bound)
    places = dict(zip(tensors, offsets, strict=False))
    rest = dict(zip(times, offsets[len(tensors) :], strict=True))
    return Arena(places, rest, max(size, ALIGNMENT), bound)


def squeezed(buffers: Sequence[Buffer], plan: MemoryPlan, bound: int) -> tuple[Sequence[int], int]:
    """Offsets and size of a smaller arena, by a search that always takes the same way.

    Buffers are placed one after the other as low as they fit. One of those at the top comes
    earlier in the next order; an order is kept unless its arena is larger.
    """
    rng = np.random.default_rng(0)
    order = sorted(range(len(buffers)), key=lambda i: plan.offsets[i])
    meets = [[j for j, b in enumerate(buffers) if b.meets(a)] for a in buffers]
    best: tuple[Sequence[int], int] = (plan.offsets, plan.arena)
    offsets, size = _placed(buffers, order, meets)
    for _ in range(TRIES):
        if size < best[1]:
            best = (offsets, size)
        if best[1] == bound:
            break
        high = [i for i in order if offsets[i] + buffers[i].padded == size]
        moved = high[int(rng.integers(len(high)))]
        trial = [i for i in order if i != moved]
        trial.insert(int(rng.integers(order.index(moved) + 1)), moved)
        found, top = _placed(buffers, trial, meets)
        if top <= size:
            order, offsets, size = trial, found, top
    return best


def _placed(
    buffers: Sequence[Buffer], order: Sequence[int], meets: Sequence[Sequence[int]]
) -> tuple[list[int], int]:
    """Each as low as it fits beside those that were placed before; the height of all."""
    offsets, size = [-1] * len(buffers), 0
    for index in order:
        low, length = 0, buffers[index].padded
        around = [(offsets[j], buffers[j].padded) for j in meets[index] if offsets[j] >= 0]
        for offset, other in sorted(around):
            if offset - low >= length:
                break
            low = max(low, offset + other)
        offsets[index] = low
        size = max(size, low + length)
    return offsets, size
