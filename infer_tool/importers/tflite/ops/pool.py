"""Pooling over height and width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_tool.importers.tflite.layout import TO_FIRST, TO_LAST, spatial_padding
from infer_tool.importers.tflite.names import DTYPES
from infer_tool.importers.tflite.quantised import activation_bounds, is_quantised_activation, same
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call


def _window(c: Call, x: ir.Value) -> dict[str, Any]:
    kernel = [c.options.integer("filter_h"), c.options.integer("filter_w")]
    strides = [c.options.integer("stride_h"), c.options.integer("stride_w")]
    return {
        "kernel_shape": kernel, "strides": strides,
        **spatial_padding(c, x, kernel, strides, (1, 1)),
    }  # fmt: skip


@op("MAX_POOL_2D")
def max_pool_2d(c: Call) -> None:
    """The largest value of each window; padding never wins."""
    x = c.real(0, TO_FIRST[4])
    c.put(c.activated(c.emit("MaxPool", x, **_window(c, x))), perm=TO_LAST[4])


@op("AVERAGE_POOL_2D")
def average_pool_2d(c: Call) -> None:
    """The mean of each window; padding is not counted."""
    if is_quantised_activation(c.tensor(0)) and same(c.tensor(0), c.result()):
        _integer_average_pool_2d(c)
        return
    x = c.real(0, TO_FIRST[4])
    c.put(c.activated(c.emit("AveragePool", x, **_window(c, x))), perm=TO_LAST[4])


def _integer_average_pool_2d(c: Call) -> None:
    """The mean of the integers themselves, halves rounded away from zero.

    In steps of one such means are exact, and dividing them by a little less than one moves only
    the halves: the next larger fraction of a window of n is 1 / (2 n) away.
    """
    x = c.permuted(c.stored(0), TO_FIRST[4])
    zero = c.build.constant(0, DTYPES[c.tensor(0).type].numpy())
    one, less = (c.build.constant(v, np.float32) for v in (1, 1 - 2**-20))
    x = c.emit("DequantizeLinear", x, one, zero)
    y = c.emit("AveragePool", x, **_window(c, x))
    bounds = activation_bounds(c.result(), c.options.integer("activation"))
    if bounds:
        y = c.emit("Clip", y, *(c.number(bound, y) for bound in bounds))
    y = c.emit("QuantizeLinear", y, less, zero)
    c.bind(c.permuted(y, TO_LAST[4]))


@op("L2_POOL_2D")
def l2_pool_2d(c: Call) -> None:
    """The root of the mean square of each window."""
    x = c.real(0, TO_FIRST[4])
    squares = c.emit("AveragePool", c.emit("Mul", x, x), **_window(c, x))
    c.put(c.activated(c.emit("Sqrt", squares)), perm=TO_LAST[4])
