"""Depthwise convolutions on NCHWc tensors: a row of outputs stays in registers.

Taps that fall on padding are left out: edge columns have code of their own, edge rows have fewer
lines of the filter. So no padded copy of the input is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop
from infer_native.kernels import Code
from infer_native.kernels.gemm import pad_columns

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Epilogue
    from infer_native.program import Array, Layer
    from infer_runtime.ops.window import Window

MAX_TAPS = 16  # of a line of the filter


def depthwise(
    layer: Layer, isa: Isa, where: Window, weights: Array, bias: Array | None, epilogue: Epilogue
) -> Code:
    """One filter for each channel; arguments as those of `blocked_conv.conv`."""
    x, y, lanes = layer.input(0), layer.output(), isa.lanes
    samples, blocks, height, width, _ = x.shape
    _, _, rows, out, _ = y.shape
    kh, kw = weights.shape[2:]
    padded = np.zeros((blocks * lanes, kh * kw), np.float32)
    padded[: weights.shape[0]] = weights.reshape(weights.shape[0], kh * kw)
    table = padded.reshape(blocks, lanes, kh * kw).transpose(0, 2, 1)
    tile = tile_width(out, isa, kw)
    name, text = _row(isa, where, width, out, tile, epilogue)
    calls = []
    for first, end, taps in _runs(where, rows, height):
        top = f"(r * {where.strides[0]} + {taps[0] * where.dilations[0] - where.begins[0]})"
        call = (
            f"const long at = (n * {blocks} + c) * {rows * out * lanes} + r * {out * lanes};\n"
            f"{name}(x0 + (n * {blocks} + c) * {height * width * lanes} + {top} * "
            f"{width * lanes}, t0 + c * {kh * kw * lanes} + {taps[0] * kw * lanes}, "
            f"t1 + c * {lanes}, y0 + at{epilogue.arguments('at', 2, f'c * {lanes}')}, "
            f"{taps[1] - taps[0]});"
        )
        calls.append(loop("r", end, call.replace("+ -", "- "), first))
    body = loop("n", samples, loop("c", blocks, "\n".join(calls)))
    bias_table = pad_columns(bias, blocks, lanes)
    tables = [np.ascontiguousarray(table).reshape(-1), bias_table, *epilogue.tables(blocks, lanes)]
    return Code(body, tables, 0, {name: text})


def tile_width(out: int, isa: Isa, kw: int) -> int:
    """Outputs of a row in registers, beside the weights of a line and the input."""
    most = max(2, isa.registers - kw - 3)
    count = -(-out // most)
    return -(-out // count)


def row_taps(where: Window, row: int, height: int) -> tuple[int, int]:
    """First and end of the lines of the filter that meet real rows."""
    start = row * where.strides[0] - where.begins[0]
    inside = [k for k in range(where.kernel[0]) if 0 <= start + k * where.dilations[0] < height]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def fits(where: Window) -> bool:
    """Is the code of a line of the filter small enough?"""
    return where.kernel[1] <= MAX_TAPS


def _runs(where: Window, rows: int, height: int) -> list[tuple[int, int, tuple[int, int]]]:
    """Rows one after the other that have the same taps."""
    runs: list[tuple[int, int, tuple[int, int]]] = []
    for row in range(rows):
        taps = row_taps(where, row, height)
        if runs and runs[-1][2] == taps:
            runs[-1] = (runs[-1][0], row + 1, taps)
        else:
            runs.append((row, row + 1, taps))
    return runs


def _row(
    isa: Isa, where: Window, width: int, out: int, tile: int, epilogue: Epilogue
) -> tuple[str, str]:
    """A function for one row: tiles at the edges apart, those between them in a loop."""
    (kh, kw), (_, stride), (_, dilation) = where.kernel, where.strides, where.dilations
    name = (
        f"dw_{kh}x{kw}_s{stride}d{dilation}p{where.begins[1]}_w{width}_o{out}"
        f"_y{where.dilations[0]}" + (f"_{epilogue.key}" if epilogue.key else "")
    )
    parts, start = [], 0
    while start < out:
        size = min(tile, out - start)
        if size == tile and _inside(where, start, size, width):
            end = start
            while end + tile <= out and _inside(where, end, tile, width):
                end += tile
            body = _tile_code(where, width, tile, epilogue, None)
            offset = stride * isa.lanes
            parts.append(
                f"for (long i = {start}; i < {end}; i += {tile}) {{\n"
                f"const float *p = in + (i * {offset} - {where.begins[1] * isa.lanes});\n"
                f"const long o = i * VL;\n{body}\n}}"
            )
            start = end
        else:
            body = _tile_code(where, width, size, epilogue, start)
            first = start * stride - where.begins[1]
            parts.append(
                f"{{\nconst float *p = in + ({first * isa.lanes});\nconst long o = {start} * VL;\n"
                f"{body}\n}}"
            )
            start += size
    text = (
        f"static void {name}(const float *restrict in, const float *restrict w, "
        f"const float *bias, float *restrict y{epilogue.parameters}, long lines) {{\n"
        "const vf start = LD(bias);\n" + "\n".join(parts) + "\n}\n"
    )
    return name, text


def _inside(where: Window, start: int, size: int, width: int) -> bool:
    """Do all taps of a tile meet real columns?"""
    first = start * where.strides[1] - where.begins[1]
    last = (
        (start + size - 1) * where.strides[1]
        - where.begins[1]
        + (where.kernel[1] - 1) * where.dilations[1]
    )
    return first >= 0 and last < width


def _tile_code(where: Window, width: int, size: int, epilogue: Epilogue, start: int | None) -> str:
    """Each input of a line is loaded once and added to every output that it reaches."""
    kw, stride, dilation = where.kernel[1], where.strides[1], where.dilations[1]
    lines = ["vf " + ", ".join(f"c{n} = start" for n in range(size)) + ";", "const float *t = w;"]
    lines += ["#pragma GCC unroll 1", "for (long l = lines; l; l--) {"]
    lines += [f"const vf w{x} = LD(t + {x} * VL);" for x in range(kw)]
    uses: dict[int, list[tuple[int, int]]] = {}
    for n in range(size):
        for x in range(kw):
            uses.setdefault(n * stride + x * dilation, []).append((n, x))
    for column, meets in sorted(uses.items()):
        if start is not None and not 0 <= start * stride - where.begins[1] + column < width:
            continue
        sums = " ".join(f"c{n} += v * w{x};" for n, x in meets)
        lines.append(f"{{ const vf v = LD(p + {column} * VL); {sums} }}")
    lines += [f"p += {where.dilations[0] * width} * VL; t += {kw} * VL;", "}"]
    for n in range(size):
        text = epilogue.lines.replace("@AT", f"o + {n} * VL").replace("@COLUMN", "0")
        lines.append(f"{{ vf v = c{n}; {text}ST(y + o + {n} * VL, v); }}")
    return "\n".join(lines)
