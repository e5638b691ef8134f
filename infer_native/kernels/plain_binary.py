"""Binary layers on plain tensors, in scalar code: 32 channels to a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop, nest
from infer_native.kernels import Code, kernel
from infer_native.kernels.bits import BITS, packed, starts
from infer_native.kernels.geometry import window_of

if TYPE_CHECKING:
    from infer_native.binarised import Binary
    from infer_native.program import Layer


@kernel("_BConv")
def BConv(layer: Layer) -> Code:
    """Any group: the channels of each begin a word."""
    how: Binary = layer.attrs["binary"]
    signs, group = how.levels.signs, layer.attrs.get("group", 1)
    (samples, channels, height, width), y = layer.input(0).shape, layer.output()
    _, outputs, rows, out = y.shape
    where = window_of(layer, (height, width), signs.shape[2:])
    (kh, kw), each = where.kernel, channels // group
    words = -(-each // BITS)
    line = width + where.begins[1] + where.ends[1]
    size = (height + where.begins[0] + where.ends[0]) * line * group * words
    top, left = where.begins
    sums, row_class, column_class = starts(how.levels, where, (height, width))
    by_tap = signs.transpose(0, 2, 3, 1).reshape(outputs, kh * kw, each)
    tables = [
        packed(by_tap, words), sums, row_class, column_class, how.levels.scale, how.bias,
        how.threshold,
    ]  # fmt: skip
    sign = (
        f"if (x0[((n * {channels} + c) * {height} + r) * {width} + i] >= t6[c])\n"
        f"  in[((r + {top}) * {line} + i + {left}) * {group * words} + c / {each} * {words} + "
        f"c % {each} / {BITS}] |= (uint32_t)1 << (c % {each} % {BITS});"
    )
    at = (
        f"in[((r * {where.strides[0]} + y * {where.dilations[0]}) * {line} + "
        f"i * {where.strides[1]} + x * {where.dilations[1]}) * {group * words} + "
        f"m / {outputs // group} * {words} + k]"
    )
    count, more = _differ(at, f"((y * {kw} + x) * {words} + k) * {outputs} + m", how)
    pixel = (
        f"long differ = 0;\n{nest(('y', 'x', 'k'), (kh, kw, words), count)}\n"
        f"{_scaled(f't1[(t2[r] + t3[i]) * {outputs} + m]')}\n"
        f"y0[((n * {outputs} + m) * {rows} + r) * {out} + i] = scaled + t5[m];"
    )
    body = (
        f"uint32_t *in = (uint32_t *)s;\nmemset(in, 0, {4 * size});\n"
        + nest(("c", "r", "i"), (channels, height, width), sign)
        + "\n" + nest(("m", "r", "i"), (outputs, rows, out), pixel)
    )  # fmt: skip
    if more:
        tables.append(packed(by_tap != 0, words))
    return Code(loop("n", samples, body), tables, 4 * size)


@kernel("_BRows")
def BRows(layer: Layer) -> Code:
    """A row at a time."""
    how: Binary = layer.attrs["binary"]
    outputs, size = how.levels.signs.shape[:2]
    rows, words = layer.input(0).size // size, -(-size // BITS)
    by_word = how.levels.signs.reshape(outputs, 1, size)
    total = np.abs(how.levels.signs.astype(np.int32)).sum(axis=(1, 2, 3), dtype=np.int32)
    tables = [packed(by_word, words), total, how.levels.scale, how.bias, how.threshold]
    count, more = _differ("in[k]", f"k * {outputs} + m", how, table=5)
    if more:
        tables.append(packed(by_word != 0, words))
    sign = f"if (x0[r * {size} + k] >= t4[k]) in[k / {BITS}] |= (uint32_t)1 << (k % {BITS});"
    dot = (
        f"long differ = 0;\n{loop('k', words, count)}\n{_scaled('t1[m]', scale='t2')}\n"
        f"y0[r * {outputs} + m] = scaled + t3[m];"
    )
    body = (
        f"uint32_t *in = (uint32_t *)s;\nmemset(in, 0, {4 * words});\n"
        f"{loop('k', size, sign)}\n{loop('m', outputs, dot)}"
    )
    return Code(loop("r", rows, body), tables, 4 * words)


def _differ(word: str, at: str, how: Binary, table: int = 7) -> tuple[str, bool]:
    """Counting where a word and the weights differ, but for weights of 0; has it any?"""
    text, ternary = f"{word} ^ t0[{at}]", how.levels.ternary
    text = f"({text}) & t{table}[{at}]" if ternary else text
    return f"differ += nx_count({text});", ternary


def _scaled(start: str, scale: str = "t4") -> str:
    """The product is rounded before the bias is added, as in the meaning of the function."""
    return (
        f"const long sum = {start} - 2 * differ;\nvolatile float scaled = {scale}[m] * (float)sum;"
    )


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
