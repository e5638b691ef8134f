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


def pool_bytes(layer: Layer, where: Window) -> Code:
    """MaxPool of uint8: the largest of some lines first, then of neighbours in that line."""
    x, y = layer.input(0), layer.output()
    height, width, lanes = x.shape[2:5]
    rows, out = y.shape[2:4]
    (ky, kx), (sy, sx), (dy, dx) = where.kernel, where.strides, where.dilations
    (top, left), line = where.begins, width * lanes
    lines = (
        f"const long row = r * {sy} + a * {dy} - {top};\n"
        f"if (row < 0 || row >= {height}) continue;\n"
        f"const uint8_t *q = p + row * {line};\n"
        + loop("i", line, "m[i] = q[i] > m[i] ? q[i] : m[i];")
    )
    taps = (
        f"const long column = i * {sx} + b * {dx} - {left};\n"
        f"if (column < 0 || column >= {width}) continue;\n"
        "v = q_largest(v, LDB(m + column * VL));"
    )
    pixel = f"vbytes v = {{0}};\n{loop('b', kx, taps)}\nSTB(o + (r * {out} + i) * VL, v);"
    row = f"memset(m, 0, {line});\n{loop('a', ky, lines)}\n{loop('i', out, pixel)}"
    body = (
        f"const uint8_t *p = x0 + c * {height * line};\n"
        f"uint8_t *o = y0 + c * {rows * out * lanes};\n{loop('r', rows, row)}"
    )
    text = loop("c", x.shape[0] * x.shape[1], body)
    return Code(f"uint8_t *restrict m = (uint8_t *)s;\n{text}", scratch=line)


def pad_bytes(layer: Layer, begins: Sequence[int], value: int, channels: int) -> Code:
    """As `pad`, of uint8."""
    (samples, blocks, height, width, lanes), out = layer.input(0).shape, layer.output().shape
    total, rows, columns = out[1:4]
    (top, left), line = begins, columns * lanes
    right = columns - left - width
    row = (
        f"uint8_t *o = y0 + ((n * {total} + c) * {rows} + r) * {line};\n"
        f"const int in = c < {blocks} && r >= {top} && r < {top + height};\n"
        f"if (!in) {{ memset(o, {value}, {line}); continue; }}\n"
        + (f"memset(o, {value}, {left * lanes});\n" if left else "")
        + f"memcpy(o + {left * lanes}, x0 + ((n * {blocks} + c) * {height} + r - {top}) * "
        f"{width * lanes}, {width * lanes});\n"
        + (f"memset(o + {(left + width) * lanes}, {value}, {right * lanes});" if right else "")
    )
    if channels % lanes:
        row += (
            f"\nif (c == {blocks - 1}) for (long i = 0; i < {columns}; i++)\n"
            f"  memset(o + i * {lanes} + {channels % lanes}, {value}, {lanes - channels % lanes});"
        )
    return Code(loop("n", samples, loop("c", total, loop("r", rows, row))))


def helpers() -> dict[str, str]:
    """Vectors of bytes, one for each channel."""
    return {
        "LDB": (
            "typedef uint8_t vbytes __attribute__((vector_size(VL), aligned(1), may_alias));\n"
            "#define LDB(p) (*(const vbytes *)(p))\n#define STB(p, v) (*(vbytes *)(p) = (v))"
        ),
        "q_largest": (
            "static inline vbytes q_largest(vbytes a, vbytes b) {\n"
            "  const vbytes m = (vbytes)(a > b);\n  return (a & m) | (b & ~m);\n}"
        ),
    }


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
