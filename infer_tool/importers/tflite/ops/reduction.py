"""Operators that reduce axes, or run along them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    from infer_tool.importers.tflite.call import Call

_REDUCTIONS = {
    "MEAN": "ReduceMean", "SUM": "ReduceSum", "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin", "REDUCE_PROD": "ReduceProd",
}  # fmt: skip


@op(*_REDUCTIONS)
def reduce(c: Call) -> None:
    """Over the axes of input 1; over none where it is empty."""
    y = c.emit(
        _REDUCTIONS[c.operator.name], c.real(0), c.flat(c.int64(1)),
        keepdims=int(c.options.flag("keep_dims")), noop_with_empty_axes=1,
    )  # fmt: skip
    c.put(y)


@op("REDUCE_ANY", "REDUCE_ALL")
def reduce_truth(c: Call) -> None:
    """Or, and: the largest and the smallest of numbers 0 and 1."""
    kind = "ReduceMax" if c.operator.name == "REDUCE_ANY" else "ReduceMin"
    y = c.emit(
        kind, c.cast(c.stored(0), "INT32"), c.flat(c.int64(1)),
        keepdims=int(c.options.flag("keep_dims")), noop_with_empty_axes=1,
    )  # fmt: skip
    c.bind(c.cast(y, "BOOL"))


@op("ARG_MAX", "ARG_MIN")
def arg(c: Call) -> None:
    """The first place of the largest or smallest element along an axis."""
    (axis,) = c.known(1)
    kind = "ArgMax" if c.operator.name == "ARG_MAX" else "ArgMin"
    found = c.emit(kind, c.real(0), axis=c.axis(c.stored(0), axis), keepdims=0)
    c.bind(c.cast(found, c.result().type))


@op("CUMSUM")
def cumsum(c: Call) -> None:
    """Running sums along an axis."""
    (axis,) = c.known(1)
    exclusive, reverse = (int(c.options.flag(name)) for name in ("exclusive", "reverse"))
    c.put(c.emit("CumSum", c.real(0), c.build.constant(axis), exclusive=exclusive, reverse=reverse))


@op("TOPK_V2")
def top_k(c: Call) -> None:
    """The largest elements of the last axis and their places."""
    values, places = c.build.node("TopK", [c.real(0), c.flat(c.int64(1))], 2, axis=-1)
    c.put(values)
    c.bind(c.cast(places, c.result(1).type), 1)


@op("UNIQUE")
def unique(c: Call) -> None:
    """The different elements in the order of their first places, and where each element went."""
    x = c.stored(0)
    # ONNX Runtime has it for these two types only.
    wide = x if c.tensor(0).type == "FLOAT32" else c.cast(x, "INT64")
    values, _, places, _ = c.build.node("Unique", [wide], 4, sorted=0)
    c.bind(c.cast(values, c.result().type))
    c.bind(c.cast(places, c.result(1).type), 1)


@op("WHERE")
def where(c: Call) -> None:
    """The places of true elements, one in each row."""
    c.bind(c.cast(c.permuted(c.emit("NonZero", c.stored(0)), (1, 0)), c.result().type))


@op("BUCKETIZE")
def bucketize(c: Call) -> None:
    """How many of the boundaries each element reaches."""
    x = c.real(0)
    bounds = c.build.constant(c.options.reals("boundaries"), np.float32)
    wide = c.emit("Unsqueeze", c.cast(x, "FLOAT32"), c.build.ints(-1))
    reached = c.cast(c.emit("GreaterOrEqual", wide, bounds), "INT32")
    c.bind(c.emit("ReduceSum", reached, c.build.ints(-1), keepdims=0))
