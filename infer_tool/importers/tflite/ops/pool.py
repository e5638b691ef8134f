"""Pooling over height and width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_tool.importers.tflite.layout import TO_FIRST, TO_LAST, spatial_padding
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call


def _window(c: Call, x: ir.Value) -> dict[str, Any]:
    kernel = [c.options.int("filter_h"), c.options.int("filter_w")]
    strides = [c.options.int("stride_h"), c.options.int("stride_w")]
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
    x = c.real(0, TO_FIRST[4])
    c.put(c.activated(c.emit("AveragePool", x, **_window(c, x))), perm=TO_LAST[4])


@op("L2_POOL_2D")
def l2_pool_2d(c: Call) -> None:
    """The root of the mean square of each window."""
    x = c.real(0, TO_FIRST[4])
    squares = c.emit("AveragePool", c.emit("Mul", x, x), **_window(c, x))
    c.put(c.activated(c.emit("Sqrt", squares)), perm=TO_LAST[4])
