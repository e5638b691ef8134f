"""Pooling and zeros around images, on NCHWc tensors: one vector of channels at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal, loop
from infer_native.kernels import Code
from infer_runtime.ops.pool import counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.program import Layer
    from infer_runtime.ops.window import Window

LOWEST = literal(-np.inf, "float")


def pool(layer: Layer, where: Window) -> Code:
    """MaxPool and AveragePool of two axes; taps that fall on padding are left out."""
    x, y = layer.input(0), layer.output()
    height, width = x.shape[2:4]
    rows, out = y.shape[2:4]
    largest, tables = layer.op == "MaxPool", []
    end = f"ST(o + (r * {out} + i) * VL, v);"
    if not largest:
        pads, auto = layer.attrs.get("pads"), layer.attrs.get("auto_pad", "NOTSET")
        include = bool(layer.attrs.get("count_include_pad", 0))
        number = counts((height, width), where, pads, auto, include)
        tables = [(1 / np.ascontiguousarray(number)).astype(np.float32).reshape(-1)]
        end = f"ST(o + (r * {out} + i) * VL, v * VSET(t0[r * {out} + i]));"
    value = f"LD(p + (row * {width} + column) * VL)"
    update = f"v = VMAX(v, {value});" if largest else f"v += {value};"
    (ky, kx), (sy, sx), (dy, dx) = where.kernel, where.strides, where.dilations
    taps = loop(
        "b", kx,
        f"const long column = i * {sx} + b * {dx} - {where.begins[1]};\n"
        f"if (column < 0 || column >= {width}) continue;\n{update}",
    )  # fmt: skip
    lines = loop(
        "a", ky,
        f"const long row = r * {sy} + a * {dy} - {where.begins[0]};\n"
        f"if (row < 0 || row >= {height}) continue;\n{taps}",
    )  # fmt: skip
    pixel = f"vf v = VSET({LOWEST if largest else '0.0f'});\n{lines}\n{end}"
    planes = x.shape[0] * x.shape[1]
    body = (
        f"const float *p = x0 + c * {height * width} * VL;\n"
        f"float *o = y0 + c * {rows * out} * VL;\n" + loop("r", rows, loop("i", out, pixel))
    )
    return Code(loop("c", planes, body), tables)


def pad(layer: Layer, begins: Sequence[int], value: float, channels: int) -> Code:
    """A constant around images and behind the last of `channels` channels.

    `begins` are the pixels before the first row and column.
    """
    (samples, blocks, height, width, lanes), out = layer.input(0).shape, layer.output().shape
    total, rows, columns = out[1:4]
    top, left = begins
    number = literal(value, "float")
    inside = (
        f"c < {blocks} && r >= {top} && r < {top + height} && i >= {left} && i < {left + width}"
    )
    at = f"(((n * {blocks} + c) * {height} + r - {top}) * {width} + i - {left}) * VL"
    cut = ""
    if channels % lanes:
        cut = (
            f"\nif (c == {blocks - 1}) for (long l = {channels % lanes}; l < VL; l++) "
            f"o[l] = {number};"
        )
    pixel = (
        f"float *o = y0 + (((n * {total} + c) * {rows} + r) * {columns} + i) * VL;\n"
        f"const int in = {inside};\nST(o, in ? LD(x0 + {at}) : VSET({number}));{cut}"
    )
    return Code(loop("n", samples, loop("c", total, loop("r", rows, loop("i", columns, pixel)))))
