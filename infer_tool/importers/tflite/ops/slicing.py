"""Parts of tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call

_END = np.iinfo(np.int64).max


@op("SLICE")
def slice_(c: Call) -> None:
    """From `begin`, `size` elements; -1 for all that follow."""
    begin, size = c.int64(1), c.int64(2)
    is_open = c.emit("Less", size, c.build.ints(0))
    end = c.emit("Where", is_open, c.build.ints(_END), c.emit("Add", begin, size))
    axes = c.build.ints(*range(c.rank(c.stored(0))))
    c.move(lambda x: c.emit("Slice", x, begin, end, axes))


@dataclass
class _Plan:
    """Which entries of begin, end and strides slice which axes, and what happens to these."""

    entries: list[int] = field(default_factory=list)
    axes: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)  # axes of the sliced tensor
    new: list[int] = field(default_factory=list)  # axes of the result


@op("STRIDED_SLICE")
def strided_slice(c: Call) -> None:
    """Python's slicing: bits of masks stand for `:`, `...`, `None` and a single index."""
    plan = _plan(c)
    begin, end, step = (_chosen(c, slot, plan) for slot in (1, 2, 3))
    steps = c.known(3)
    if c.options.flag("offset"):
        end = c.emit("Add", begin, end)
    begin, end = _masked(c, plan, begin, end, steps)
    axes = c.build.ints(*plan.axes)

    def sliced(x: ir.Value) -> ir.Value:
        if plan.axes:
            x = c.emit("Slice", x, begin, end, axes, step)
        if plan.dropped:
            x = c.emit("Squeeze", x, c.build.ints(*plan.dropped))
        return c.emit("Unsqueeze", x, c.build.ints(*plan.new)) if plan.new else x

    c.move(sliced)


def _plan(c: Call) -> _Plan:
    plan, rank, count = _Plan(), c.rank(c.stored(0)), len(c.known(3))
    ellipsis, new, shrink = (
        c.options.integer(f"{kind}_mask") for kind in ("ellipsis", "new_axis", "shrink")
    )
    if ellipsis & (ellipsis - 1):
        raise ModelError(f"{c} has several ellipses")
    taken = sum(not (new >> i & 1 or ellipsis >> i & 1) for i in range(count))
    if taken > rank:
        raise ModelError(f"{c} slices {taken} axes of {rank}")
    axis = place = 0
    for i in range(count):
        if ellipsis >> i & 1:
            axis, place = axis + rank - taken, place + rank - taken
        elif new >> i & 1:
            plan.new.append(place)
            place += 1
        else:
            plan.entries.append(i)
            plan.axes.append(axis)
            if shrink >> i & 1:
                plan.dropped.append(axis)
            else:
                place += 1
            axis += 1
    return plan


def _chosen(c: Call, slot: int, plan: _Plan) -> ir.Value:
    """The entries that slice axes."""
    return c.emit("Gather", c.int64(slot), c.build.constant(np.array(plan.entries, np.int64)))


def _masked(
    c: Call, plan: _Plan, begin: ir.Value, end: ir.Value, steps: list[int]
) -> tuple[ir.Value, ir.Value]:
    """Open ends where the masks say so; a single index ends after itself."""
    shrink, first, last = (
        np.array([c.options.integer(f"{kind}_mask") >> i & 1 for i in plan.entries], bool)
        for kind in ("shrink", "begin", "end")
    )
    backwards = np.array([steps[i] < 0 for i in plan.entries], bool)
    if (shrink & backwards).any():
        raise ModelError(f"{c} takes a single index backwards")
    after = c.emit("Add", begin, c.build.ints(1))
    is_last = c.emit("Equal", begin, c.build.ints(-1))
    after = c.emit("Where", is_last, c.build.ints(_END), after)
    starts = np.where(backwards, _END, 0).astype(np.int64)
    ends = np.where(backwards, -_END, _END).astype(np.int64)
    begin = _where(c, first & ~shrink, starts, begin)
    end = _where(c, last & ~shrink, ends, end)
    if shrink.any():
        end = c.emit("Where", c.build.constant(shrink), after, end)
    return begin, end


def _where(c: Call, mask: np.ndarray, fixed: np.ndarray, value: ir.Value) -> ir.Value:
    if not mask.any():
        return value
    return c.emit("Where", c.build.constant(mask), c.build.constant(fixed), value)
