"""The same elements in the same order under another shape; and shapes as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.tflite.names import DTYPES
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    from infer_tool.importers.tflite.call import Call


@op("RESHAPE")
def reshape(c: Call) -> None:
    """The shape is an input, or an option in old files."""
    if c.has(1):
        target = c.int64(1)
    else:
        target = c.build.ints(*(c.options.integers("new_shape") or c.result().shape))
    if c.tensor(0).type == "COMPLEX64":
        target = c.emit("Concat", target, c.build.ints(2), axis=0)
    c.move(lambda x: c.emit("Reshape", x, target))


@op("EXPAND_DIMS")
def expand_dims(c: Call) -> None:
    """A new axis of one element."""
    (axis,), x = c.known(1), c.stored(0)
    rank = c.rank(x) - (c.tensor(0).type == "COMPLEX64")
    if not -rank - 1 <= axis <= rank:
        raise c.unsupported(f"axis {axis} of {rank + 1}")
    c.move(lambda x: c.emit("Unsqueeze", x, c.build.ints(axis % (rank + 1))))


@op("SQUEEZE")
def squeeze(c: Call) -> None:
    """Without these axes, or without all that have one element."""
    x = c.stored(0)
    rank = c.rank(x) - (c.tensor(0).type == "COMPLEX64")
    axes = c.options.integers("axes") or tuple(i for i, d in enumerate(c.sizes(x)[:rank]) if d == 1)
    target = c.build.ints(*(axis % max(rank, 1) for axis in axes))
    c.move(lambda x: c.emit("Squeeze", x, target))


@op("SHAPE")
def shape(c: Call) -> None:
    """The sizes of the axes."""
    end = {"end": -1} if c.tensor(0).type == "COMPLEX64" else {}
    c.bind(c.cast(c.emit("Shape", c.stored(0), **end), c.result().type))


@op("RANK")
def rank(c: Call) -> None:
    """The number of axes."""
    found = c.rank(c.stored(0))
    c.bind(c.build.constant(found, DTYPES[c.result().type].numpy()))
