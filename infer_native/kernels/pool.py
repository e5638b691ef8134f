"""Pooling over windows."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal, loop, lowest
from infer_native.kernels import Code, kernel
from infer_native.kernels.geometry import Reach, over_taps, window_of
from infer_runtime.ops.pool import counts

if TYPE_CHECKING:
    from infer_native.program import Layer
    from infer_runtime.ops.window import Window


def _pooled(layer: Layer, where: Window, start: str, update: str, end: str = "") -> str:
    """Every plane: fill with `start`, `update` y by v for each tap, then `end` for each y."""
    x = layer.input(0)
    size = x.shape[2:]
    width, out = size[-1], where.out[-1]
    pixels, inner = prod(where.out), prod(size)
    step, shift = where.strides[-1], where.begins[-1]

    def row(reach: Reach) -> str:
        offset = reach.tap * where.dilations[-1] - shift
        at = f"line * {width} + i * {step} + {offset}".replace("+ -", "- ")
        line = f"const {x.ctype} v = xp[{at}];\n" + update.replace("@", f"yp[row * {out} + i]")
        return loop("i", reach.end, line, reach.first)

    body = loop("i", pixels, f"yp[i] = {start};") + "\n" + over_taps(where, size, row)
    if end:
        body += "\n" + loop("i", pixels, end.replace("@", "yp[i]"))
    head = f"const {x.ctype} *xp = x0 + c * {inner};\n{x.ctype} *yp = y0 + c * {pixels};\n"
    return loop("c", prod(x.shape[:2]), head + body)


@kernel("MaxPool")
def MaxPool(layer: Layer) -> Code:
    """Positions, the second output, are not emitted."""
    if layer.has_output(1):
        raise layer.refused("the positions of MaxPool have no kernel")
    x = layer.input(0)
    where = window_of(layer, x.shape[2:], layer.attrs["kernel_shape"])
    return Code(_pooled(layer, where, lowest(x.ctype), f"@ = nx_max_{x.ctype}(v, @);"))


@kernel("AveragePool")
def AveragePool(layer: Layer) -> Code:
    """Sums, times a table of one over the number of elements."""
    x, attrs = layer.input(0), layer.attrs
    where = window_of(layer, x.shape[2:], attrs["kernel_shape"])
    number = counts(
        x.shape[2:], where, attrs.get("pads"), attrs.get("auto_pad", "NOTSET"),
        bool(attrs.get("count_include_pad", 0)),
    )  # fmt: skip
    table = np.ascontiguousarray(number).astype(x.dtype).reshape(-1)
    return Code(_pooled(layer, where, "0", "@ += v;", "@ /= t0[i];"), [table])


@kernel("LpPool")
def LpPool(layer: Layer) -> Code:
    """The p-norm of each window."""
    x, p = layer.input(0), layer.attrs.get("p", 2)
    where = window_of(layer, x.shape[2:], layer.attrs["kernel_shape"])
    power = "powf" if x.ctype == "float" else "pow"
    absolute = "fabsf" if x.ctype == "float" else "fabs"
    exponent, root = literal(p, x.ctype), literal(1 / p, x.ctype)
    add = f"@ += {power}({absolute}(v), {exponent});"
    return Code(_pooled(layer, where, "0", add, f"@ = {power}(@, {root});"))
