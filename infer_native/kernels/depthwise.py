"""Depthwise convolutions on NCHWc tensors: a row of outputs stays in registers.

Taps that fall on padding are left out when the code is written: edge rows and edge columns have
code of their own, so that no padded copy of the input is needed.
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

MAX_TAPS = 81
MAX_CASES = 24  # kinds of rows that may have code of their own


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
    cases: dict[tuple[int, int], str] = {}
    helpers: dict[str, str] = {}
    for row in range(rows):
        taps = row_taps(where, row, height)
        if taps not in cases:
            name, text = _row(isa, where, width, out, taps, tile, epilogue)
            cases[taps] = name
            helpers[name] = text
    operands = "".join(f", x{n} + at" for n in range(1, 1 + len(epilogue.operands)))
    calls = []
    for first, end, taps in _runs(where, rows, height):
        top = f"(r * {where.strides[0]} + {taps[0] * where.dilations[0] - where.begins[0]})"
        call = (
            f"const long at = (n * {blocks} + c) * {rows * out * lanes} + r * {out * lanes};\n"
            f"{cases[taps]}(x0 + (n * {blocks} + c) * {height * width * lanes} + {top} * "
            f"{width * lanes}, t0 + c * {kh * kw * lanes}, t1 + c * {lanes}, y0 + at{operands});"
        )
        calls.append(loop("r", end, call.replace("+ -", "- "), first))
    body = loop("n", samples, loop("c", blocks, "\n".join(calls)))
    bias_table = pad_columns(bias, blocks, lanes)
    return Code(body, [np.ascontiguousarray(table).reshape(-1), bias_table], 0, helpers)


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


def fits(where: Window, height: int) -> bool:
    """Is the code of all kinds of rows small enough?"""
    kinds = {row_taps(where, row, height) for row in range(where.out[0])}
    return where.kernel[0] * where.kernel[1] <= MAX_TAPS and len(kinds) <= MAX_CASES


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
    isa: Isa, where: Window, width: int, out: int, taps: tuple[int, int], tile: int,
    epilogue: Epilogue,
) -> tuple[str, str]:  # fmt: skip
    """A function for one row: tiles at the edges apart, those between them in a loop."""
    (kh, kw), (_, stride), (_, dilation) = where.kernel, where.strides, where.dilations
    name = (
        f"dw_{kh}x{kw}_s{stride}d{dilation}p{where.begins[1]}_w{width}_o{out}_t{taps[0]}_{taps[1]}"
        f"_y{where.dilations[0]}" + (f"_{epilogue.key}" if epilogue.key else "")
    )
    operands = "".join(f", const float *{o}" for o in epilogue.operands)
    parts, start = [], 0
    while start < out:
        size = min(tile, out - start)
        if size == tile and _inside(where, start, size, width):
            end = start
            while end + tile <= out and _inside(where, end, tile, width):
                end += tile
            body = _tile_code(where, width, taps, tile, epilogue, isa, None)
            offset = stride * isa.lanes
            parts.append(
                f"for (long t = {start}; t < {end}; t += {tile}) {{\n"
                f"const float *p = in + (t * {offset} - {where.begins[1] * isa.lanes});\n"
                f"const long o = t * VL;\n{body}\n}}"
            )
            start = end
        else:
            body = _tile_code(where, width, taps, size, epilogue, isa, start)
            first = start * stride - where.begins[1]
            parts.append(
                f"{{\nconst float *p = in + ({first * isa.lanes});\nconst long o = {start} * VL;\n"
                f"{body}\n}}"
            )
            start += size
    text = (
        f"static void {name}(const float *restrict in, const float *restrict w, "
        f"const float *bias, float *restrict y{operands}) {{\nconst vf start = LD(bias);\n"
        + "\n".join(parts)
        + "\n}\n"
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


def _tile_code(
    where: Window, width: int, taps: tuple[int, int], size: int, epilogue: Epilogue, isa: Isa,
    start: int | None,
) -> str:  # fmt: skip
    """Each input of a line is loaded once and added to every output that it reaches."""
    kw, stride, dilation = where.kernel[1], where.strides[1], where.dilations[1]
    lines = ["vf " + ", ".join(f"c{n} = start" for n in range(size)) + ";"]
    for k in range(*taps):
        lines.append("{")
        lines += [f"const vf w{x} = LD(w + {k * kw + x} * VL);" for x in range(kw)]
        offset = (k - taps[0]) * where.dilations[0] * width
        uses: dict[int, list[tuple[int, int]]] = {}
        for n in range(size):
            for x in range(kw):
                uses.setdefault(n * stride + x * dilation, []).append((n, x))
        for column, meets in sorted(uses.items()):
            if start is not None:
                real = start * stride - where.begins[1] + column
                if not 0 <= real < width:
                    continue
            sums = " ".join(f"c{n} += v * w{x};" for n, x in meets)
            lines.append(f"{{ const vf v = LD(p + {offset + column} * VL); {sums} }}")
        lines.append("}")
    for n in range(size):
        text = epilogue.lines.replace("@AT", f"o + {n} * VL")
        lines.append(f"{{ vf v = c{n}; {text}ST(y + o + {n} * VL, v); }}")
    del isa
    return "\n".join(lines)
