"""One arena: which tensor lies where, by the lifetimes of the layers' order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from passes.memory_plan import Buffer, best_plan, largest_live_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infer_native.program import Program, Tensor

ALIGNMENT = 64


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
    plan = best_plan(buffers)
    places = dict(zip(tensors, plan.offsets, strict=False))
    rest = dict(zip(times, plan.offsets[len(tensors) :], strict=True))
    return Arena(places, rest, max(plan.arena, ALIGNMENT), largest_live_set(buffers)[0])
