"""Choosing boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call


@op("NON_MAX_SUPPRESSION_V4")
def non_max_suppression(c: Call) -> None:
    """Indices of the kept boxes, followed by zeros, and how many there are."""
    indices, count = _kept(c)
    c.bind(_padded(c, indices, count))
    c.bind(_number(c, count), 1)


@op("NON_MAX_SUPPRESSION_V5")
def non_max_suppression_with_scores(c: Call) -> None:
    """The same with the scores of the kept boxes between the two."""
    sigma = c.array(5)
    if sigma is None or sigma.any():
        raise c.unsupported("scores that decay (soft suppression)")
    indices, count = _kept(c)
    c.bind(_padded(c, indices, count))
    scores = c.emit("Gather", c.real(1), indices, axis=0)
    missing = c.emit("Sub", c.flat(c.int64(2)), count)
    c.put(c.emit("Pad", scores, c.emit("Concat", c.build.ints(0), missing, axis=0)), 1)
    c.bind(_number(c, count), 2)


def _kept(c: Call) -> tuple[ir.Value, ir.Value]:
    """Inputs: boxes, scores, how many at most, largest overlap, smallest score."""
    chosen = c.emit(
        "NonMaxSuppression",
        c.emit("Unsqueeze", c.real(0), c.build.ints(0)),
        c.emit("Unsqueeze", c.real(1), c.build.ints(0, 1)),
        c.flat(c.int64(2)), c.flat(c.real(3)), c.flat(c.real(4)),
    )  # fmt: skip
    indices = c.emit("Gather", chosen, c.build.constant(2), axis=1)
    return indices, c.emit("Shape", indices)


def _padded(c: Call, indices: ir.Value, count: ir.Value) -> ir.Value:
    missing = c.emit("Sub", c.flat(c.int64(2)), count)
    pads = c.emit("Concat", c.build.ints(0), missing, axis=0)
    return c.cast(c.emit("Pad", indices, pads), "INT32")


def _number(c: Call, count: ir.Value) -> ir.Value:
    return c.cast(c.emit("Squeeze", count, c.build.ints(0)), "INT32")
