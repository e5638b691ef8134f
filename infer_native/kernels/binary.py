"""Convolutions of -1 and 1 with -1 and 1: XOR, then counting bits.

A sum of n products is n - 2 * (places where the two differ): Rastegari et al., "XNOR-Net", 2016,
section 3.2. Inputs are packed into 32-bit words by pixel, the channels of a pixel side by side;
every lane counts for one output channel. Padding counts as -1 first; what that adds is known for
each output place, and taken off.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop, nest
from infer_native.kernels import Code, kernel
from infer_native.kernels.gemm import choose, pad_columns, panels_of
from infer_native.kernels.geometry import window_of

if TYPE_CHECKING:
    from infer_native.binarised import Binary
    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Tile
    from infer_native.program import Array, Layer
    from infer_runtime.ops.window import Window

BITS = 32


def conv(layer: Layer, isa: Isa) -> Code:
    """On a blocked input and output of float32."""
    how, lanes = _binary(layer), isa.lanes
    x, y = layer.input(0), layer.output()
    (samples, blocks, height, width, _), (_, columns, rows, out, _) = x.shape, y.shape
    where = window_of(layer, (height, width), how.bits.shape[2:])
    words, (kh, kw) = -(-blocks * lanes // BITS), where.kernel
    lines, line = _bordered(where, height, width)
    panels = panels_of(choose(out, columns, isa.registers - 1, embedded=False))
    starts, row_class, column_class = _starts(how, where, height, width)
    # Nothing reaches NaN: lanes beyond the last channel count as the zeros of the weights.
    limits = np.pad(how.threshold, (0, blocks * lanes - how.threshold.size), constant_values=np.nan)
    tables = [
        np.concatenate([
            _packed(how.bits, words, p.first * lanes, p.tile.columns * lanes) for p in panels
        ]),
        np.pad(starts, ((0, 0), (0, columns * lanes - starts.shape[1]))),
        row_class, column_class, pad_columns(how.scale, columns, lanes),
        pad_columns(how.bias, columns, lanes), limits,
    ]  # fmt: skip
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for panel in panels:
        tile, first = panel.tile, panel.first * lanes
        name, text = _product(tile, where, out, line, words, lanes, columns, rows)
        helpers[name] = text
        calls.append(
            f"{name}(in + r * {where.strides[0] * line * words}, t0 + {at}, "
            f"t1 + t2[r] * {columns * lanes} + {first}, t3, t4 + {first}, t5 + {first}, "
            f"y0 + n * {y.size // samples} + {panel.first * rows * out * lanes} + "
            f"r * {out * lanes});"
        )
        at += kh * kw * words * tile.columns * lanes
    top, left = where.begins
    pixel = (
        f"nx_signs(x0 + ((n * {blocks} + c) * {height * width} + r * {width} + i) * VL, "
        f"t6 + c * VL, in + ((r + {top}) * {line} + i + {left}) * {words}, c);"
    )
    body = (
        f"uint32_t *in = (uint32_t *)s;\nmemset(in, 0, {4 * lines * line * words});\n"
        + nest(("r", "i", "c"), (height, width, blocks), pixel)
        + "\n" + loop("r", rows, "\n".join(calls))
    )  # fmt: skip
    return Code(loop("n", samples, body), tables, 4 * lines * line * words, helpers)


def _binary(layer: Layer) -> Binary:
    how: Binary = layer.attrs["binary"]
    return how


def _bordered(where: Window, height: int, width: int) -> tuple[int, int]:
    return height + where.begins[0] + where.ends[0], width + where.begins[1] + where.ends[1]


def _packed(bits: Array, words: int, first: int, count: int) -> Array:
    """[M, C, kh, kw] as [taps, words, outputs]: those from `first` on, zeros behind the last."""
    chosen = bits[first : first + count]
    m, c, kh, kw = chosen.shape
    padded = np.zeros((count, kh * kw, words * BITS), np.uint8)
    padded[:m, :, :c] = chosen.transpose(0, 2, 3, 1).reshape(m, kh * kw, c)
    packed = np.packbits(padded, axis=-1, bitorder="little").view("<u4")
    return np.ascontiguousarray(packed.transpose(1, 2, 0)).reshape(-1)


def _starts(how: Binary, where: Window, height: int, width: int) -> tuple[Array, Array, Array]:
    """Sums before anything differs, by the taps that are real: int32 [classes, M].

    Then the class of each row, and what each column adds to it.
    """
    found = []
    for axis, size in enumerate((height, width)):
        place = np.arange(where.out[axis])[:, None] * where.strides[axis] - where.begins[axis]
        taps = place + np.arange(where.kernel[axis]) * where.dilations[axis]
        found.append(np.unique((taps >= 0) & (taps < size), axis=0, return_inverse=True))
    (by_row, rows), (by_column, columns) = found
    channels = how.bits.shape[1]
    sums = channels - 2 * how.bits.sum(axis=1, dtype=np.int64)  # of a tap that is all -1: [M, h, w]
    real = by_row[:, None, :, None] & by_column[None, :, None, :]
    outside = np.einsum("rchw,mhw->rcm", ~real, sums)
    starts = (channels * prod(where.kernel) - outside).astype(np.int32)
    count = len(by_column)
    first = (rows.reshape(-1) * count).astype(np.int32)
    return starts.reshape(-1, len(how.bits)), first, columns.reshape(-1).astype(np.int32)


def _product(
    tile: Tile, where: Window, out: int, line: int, words: int, lanes: int, columns: int, rows: int
) -> tuple[str, str]:
    """A function for a row of outputs of the columns of a tile."""
    name = (
        f"bits_{tile.rows}x{tile.columns}_{'_'.join(map(str, where.kernel))}_s{where.strides[1]}"
        f"_d{where.dilations[0]}_{where.dilations[1]}_o{out}_l{line}_w{words}_c{columns}_r{rows}"
    )
    full, rest = divmod(out, tile.rows)
    args = (where, words, line, lanes, columns, rows * out * lanes)
    text = (
        f"static void {name}(const uint32_t *a, const uint32_t *weights, const int32_t *start, "
        "const int32_t *column, const float *scale, const float *bias, float *o) {\n"
        f"for (long i = 0; i < {full}; i++) {{\n{_tile(tile.rows, tile.columns, *args)}\n"
        f"a += {tile.rows * where.strides[1] * words}; o += {tile.rows} * VL; "
        f"column += {tile.rows};\n}}\n"
    )
    if rest:
        text += f"{{\n{_tile(rest, tile.columns, *args)}\n}}\n"
    return name, text + "}\n"


def _tile(
    rows: int, width: int, where: Window, words: int, line: int, lanes: int, columns: int, ops: int
) -> str:
    (kh, kw), step = where.kernel, where.strides[1] * words
    lines = [f"vi c{m}_{j} = {{0}};" for m in range(rows) for j in range(width)]
    loads = " ".join(f"const vi w{j} = LDI((const int32_t *)b + {j} * VL);" for j in range(width))
    sums = " ".join(
        f"{{ const int32_t v = (int32_t)p[{m * step}]; "
        + " ".join(f"c{m}_{j} += POPCOUNT(w{j} ^ v);" for j in range(width))
        + " }"
        for m in range(rows)
    )
    lines += [
        "const uint32_t *b = weights;",
        f"for (long y = 0; y < {kh}; y++) for (long x = 0; x < {kw}; x++) {{",
        (
            f"const uint32_t *p = a + y * {where.dilations[0] * line * words} + "
            f"x * {where.dilations[1] * words};"
        ),
        "#pragma GCC unroll 1",
        f"for (long n = 0; n < {words}; n++) {{ {loads} {sums} p++; HIDE(p); b += {width} * VL; }}",
        "}",
    ]
    for m in range(rows):
        lines.append(f"{{ const int32_t *q = start + column[{m}] * {columns * lanes};")
        lines += [
            f"ST(o + {j * ops} + {m} * VL, LD(bias + {j} * VL) + LD(scale + {j} * VL) * "
            f"__builtin_convertvector(LDI(q + {j} * VL) - 2 * c{m}_{j}, vf));"
            for j in range(width)
        ]
        lines.append("}")
    return "\n".join(lines)


@kernel("_BConv")
def BConv(layer: Layer) -> Code:
    """On plain tensors, in scalar code."""
    how = _binary(layer)
    (samples, channels, height, width), y = layer.input(0).shape, layer.output()
    _, outputs, rows, out = y.shape
    where = window_of(layer, (height, width), how.bits.shape[2:])
    words, (kh, kw) = -(-channels // BITS), where.kernel
    lines, line = _bordered(where, height, width)
    starts, row_class, column_class = _starts(how, where, height, width)
    weights = _packed(how.bits, words, 0, outputs)
    tables = [weights, starts, row_class, column_class, how.scale, how.bias, how.threshold]
    top, left = where.begins
    sign = (
        f"if (x0[((n * {channels} + c) * {height} + r) * {width} + i] >= t6[c])\n"
        f"  in[((r + {top}) * {line} + i + {left}) * {words} + c / {BITS}] |= "
        f"(uint32_t)1 << (c % {BITS});"
    )
    at = (
        f"in[((r * {where.strides[0]} + y * {where.dilations[0]}) * {line} + "
        f"i * {where.strides[1]} + x * {where.dilations[1]}) * {words} + k]"
    )
    count = f"differ += nx_count({at} ^ t0[((y * {kw} + x) * {words} + k) * {outputs} + m]);"
    pixel = (
        f"long differ = 0;\n{nest(('y', 'x', 'k'), (kh, kw, words), count)}\n"
        f"const long sum = t1[(t2[r] + t3[i]) * {outputs} + m] - 2 * differ;\n"
        f"y0[((n * {outputs} + m) * {rows} + r) * {out} + i] = t5[m] + t4[m] * (float)sum;"
    )
    body = (
        f"uint32_t *in = (uint32_t *)s;\nmemset(in, 0, {4 * lines * line * words});\n"
        + nest(("c", "r", "i"), (channels, height, width), sign)
        + "\n" + nest(("m", "r", "i"), (outputs, rows, out), pixel)
    )  # fmt: skip
    return Code(loop("n", samples, body), tables, 4 * lines * line * words)


def helpers() -> dict[str, str]:
    """Bits of a word, by halves."""
    return {
        "nx_count": (
            "static inline long nx_count(uint32_t v) {\n"
            "  v -= (v >> 1) & 0x55555555u;\n"
            "  v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);\n"
            "  return (long)((((v + (v >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24);\n}"
        )
    }
