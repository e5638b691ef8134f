"""Operators whose result is made, and not taken from an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_tool.importers.tflite.names import DTYPES
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    from infer_tool.importers.tflite.call import Call


@op("RANGE")
def range_(c: Call) -> None:
    """From input 0 to input 1, which it does not reach, in steps of input 2."""
    scalar = c.build.constant(np.zeros(0, np.int64))
    c.bind(c.emit("Range", *(c.emit("Reshape", c.stored(i), scalar) for i in range(3))))


@op("FILL")
def fill(c: Call) -> None:
    """One value in every element of a shape."""
    c.move(lambda x: c.emit("Expand", x, c.int64(0)), (1,))


@op("ZEROS_LIKE")
def zeros_like(c: Call) -> None:
    """Zeros in the shape of the input."""
    zero = c.build.constant(np.zeros((), DTYPES[c.result().type].numpy()))
    c.bind(c.emit("Expand", zero, c.emit("Shape", c.stored(0))))


@op("ONE_HOT")
def one_hot(c: Call) -> None:
    """On at the index of each element, off elsewhere, and everywhere for indices outside.

    ONNX OneHot counts negative indices from the end, TFLite does not.
    """
    indices = c.int64(0)
    rank = c.rank(indices)
    axis = c.options.integer("axis") % (rank + 1)
    scalar = c.build.constant(np.zeros(0, np.int64))
    zero, one = c.build.constant(0), c.build.constant(1)
    count = c.emit("Range", zero, c.emit("Reshape", c.int64(1), scalar), one)
    shape = [1] * (rank + 1)
    shape[axis] = -1
    hits = c.emit(
        "Equal", c.emit("Unsqueeze", indices, c.build.ints(axis)),
        c.emit("Reshape", count, c.build.ints(*shape)),
    )  # fmt: skip
    c.move(lambda on, off: c.emit("Where", hits, on, off), (2, 3))


@op("MATRIX_DIAG")
def matrix_diag(c: Call) -> None:
    """The last axis on the diagonal of a matrix of zeros."""
    x = c.stored(0)
    size = c.sizes(x)[-1] if c.rank(x) else None
    if size is None:
        raise c.unsupported("the size of its last axis is not known")
    eye = c.build.constant(np.eye(size, dtype=bool))
    wide = c.emit("Unsqueeze", x, c.build.ints(-1))
    c.bind(c.emit("Where", eye, wide, c.number(0, x)))


@op("MATRIX_SET_DIAG")
def matrix_set_diag(c: Call) -> None:
    """Input 0 with the last axis of input 1 on its diagonal."""
    x, diagonal = c.stored(0), c.stored(1)
    rows, columns = c.sizes(x)[-2:]
    if rows is None or columns is None:
        raise c.unsupported("the size of its matrix is not known")
    eye = c.build.constant(np.eye(rows, columns, dtype=bool))
    wide = c.emit("Unsqueeze", diagonal, c.build.ints(-1 if rows <= columns else -2))
    c.bind(c.emit("Where", eye, wide, x))
