"""Sums of -1 and 1 times -1, 0 and 1 on vectors: XOR, then counting bits.

A sum of n products is n - 2 * (places where the two differ): Rastegari et al., "XNOR-Net", 2016,
section 3.2. The bits of a pixel lie side by side in whole bytes, those of its neighbours follow: a
line of a filter is one run of words, the last of which may hold bits of a pixel too many. Padding
counts as -1 first; what that adds is known for each output place, and taken off.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop, nest
from infer_native.kernels import Code
from infer_native.kernels.bit_product import Product
from infer_native.kernels.bits import BITS, BYTE, WORD, Image, Runs, Signs, Target, starts
from infer_native.kernels.gemm import Epilogue, choose, pad_columns, panels_of
from infer_native.kernels.geometry import window_of
from infer_native.program import Tensor

if TYPE_CHECKING:
    from infer_native.binarised import Binary
    from infer_native.isa import Isa
    from infer_native.program import Layer
    from infer_runtime.ops.window import Window


def fits(layer: Layer, isa: Isa) -> bool:
    """Do groups begin with a vector and with a byte?"""
    how: Binary = layer.attrs["binary"]
    group = layer.attrs.get("group", 1)
    outputs, each = how.levels.signs.shape[:2]
    unit = max(isa.lanes, 8)
    whole = each % unit == 0 and outputs // group % isa.lanes == 0
    return bool(group == 1 or whole)


def writes_signs(isa: Isa) -> bool:
    """Are the bits of a vector whole bytes?"""
    return isa.lanes >= BYTE


def image_of(layer: Layer, isa: Isa) -> Image:
    """Of the input [N, C, H, W] of a convolution."""
    how: Binary = layer.attrs["binary"]
    _, channels, height, width = layer.input(0).shape
    where = window_of(layer, (height, width), how.levels.signs.shape[2:])
    top, left = where.begins
    line = width + left + where.ends[1]
    pitch = -(-(-(-channels // isa.lanes) * isa.lanes) // 8)
    return Image(height + top + where.ends[0], line, pitch, top * line + left)


def signs_of(layer: Layer, isa: Isa) -> Signs:
    """What a convolution reads instead of its input."""
    how: Binary = layer.attrs["binary"]
    blocks = -(-how.threshold.size // isa.lanes) * isa.lanes
    # Nothing reaches NaN: lanes beyond the last channel count as the zeros of the weights.
    limits = np.pad(how.threshold, (0, blocks - how.threshold.size), constant_values=np.nan)
    return Signs(image_of(layer, isa), limits)


def bits_tensor(name: str, samples: int, image: Image) -> Tensor:
    """The memory of the bits of all samples."""
    return Tensor(f"{name}_bits", (samples, image.size), np.dtype(np.uint8))


def sign(layer: Layer) -> Code:
    """The bits of a blocked image."""
    how: Signs = layer.attrs["signs"]
    image, (samples, blocks, height, width, lanes) = how.image, layer.input(0).shape
    at = f"({image.first} + r * {image.line} + i) * {image.pitch}"
    pixel = (
        f"nx_signs(x0 + ((n * {blocks} + c) * {height * width} + r * {width} + i) * {lanes}, "
        f"t0 + c * {lanes}, b + {at}, c);"
    )
    body = (
        f"uint8_t *b = y0 + n * {image.size};\nmemset(b, 0, {image.size});\n"
        + nest(("r", "i", "c"), (height, width, blocks), pixel)
    )  # fmt: skip
    return Code(loop("n", samples, body), [how.limits])


def conv(layer: Layer, isa: Isa) -> Code:
    """Of bits into a blocked float32 image, bits of it or both; operands of the epilogue follow."""
    how: Binary = layer.attrs["binary"]
    lanes, group = isa.lanes, layer.attrs.get("group", 1)
    (samples, _, height, width), image = layer.attrs["shape"], layer.attrs["image"]
    outputs, each, kh, kw = how.levels.signs.shape
    where = window_of(layer, (height, width), (kh, kw))
    (rows, out), columns = where.out, -(-outputs // lanes)
    runs = _runs(where, image, each, group)
    signs: list[Signs] = layer.attrs["signs"]
    target = Target(lanes, rows * out * lanes, stored=layer.has_output(0))
    code = Product(layer, isa, where, image, runs, target, signs)
    panels = panels_of(choose(out, columns // group, code.free, embedded=False))
    sums, row_class, column_class = starts(how.levels, where, (height, width))
    total = columns * lanes
    tables = [
        code.weights(panels, group), np.pad(sums, ((0, 0), (0, total - outputs))), row_class,
        column_class, pad_columns(how.levels.scale, columns, lanes),
        pad_columns(how.bias, columns, lanes), *code.tables(columns),
    ]  # fmt: skip
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for number in range(group):
        for panel in panels:
            first = number * (columns // group) + panel.first
            calls.append(code.call(panel, first, at, number * (each // 8), columns, helpers))
            at += code.words(panel)
    clear = "".join(
        f"memset(y{k} + n * {s.image.size}, 0, {s.image.size});\n"
        for k, s in enumerate(signs, start=1)
    )
    body = f"const uint8_t *in = x0 + n * {image.size};\n{clear}" + loop(
        "r", rows, "\n".join(calls)
    )
    return Code(loop("n", samples, body), tables, 0, helpers)


def _runs(where: Window, image: Image, each: int, group: int) -> Runs:
    """Neighbouring taps of all channels are one run."""
    if group == 1 and (where.dilations[1] == 1 or where.kernel[1] == 1):
        return Runs(1, 0, where.kernel[1] * image.pitch)
    size = image.pitch if group == 1 else each // 8
    return Runs(where.kernel[1], where.dilations[1] * image.pitch, size)


def rows(layer: Layer, isa: Isa) -> Code:
    """Of plain rows into plain rows."""
    how: Binary = layer.attrs["binary"]
    lanes, (outputs, size) = isa.lanes, how.levels.signs.shape[:2]
    count, columns = layer.input(0).size // size, -(-outputs // isa.lanes)
    image = Image(1, count, -(-size // BITS) * WORD, 0)
    runs = Runs(1, 0, image.pitch)
    code = Product(layer, isa, None, image, runs, Target(outputs, lanes, outputs % lanes), [])
    panels = panels_of(choose(count, columns, code.free, embedded=False))
    sums = np.abs(how.levels.signs.astype(np.int32)).sum(axis=(1, 2, 3), dtype=np.int32)
    tables = [
        code.weights(panels, 1), np.pad(sums, (0, columns * lanes - outputs)),
        np.zeros(1, np.int32), np.zeros(count, np.int32),
        pad_columns(how.levels.scale, columns, lanes), pad_columns(how.bias, columns, lanes),
        how.threshold,
    ]  # fmt: skip
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for panel in panels:
        calls.append(code.call(panel, panel.first, at, 0, columns, helpers))
        at += code.words(panel)
    rest = f"b[k / 8] |= (uint8_t)((x0[r * {size} + k] >= t6[k]) << (k % 8));"
    row = (
        f"uint8_t *b = (uint8_t *)s + r * {image.pitch};\n"
        + loop("c", size // lanes, f"nx_signs(x0 + r * {size} + c * VL, t6 + c * VL, b, c);")
        + "\n" + loop("k", size, rest, size // lanes * lanes)
    )  # fmt: skip
    body = (
        f"memset(s, 0, {image.size});\n{loop('r', count, row)}\n"
        f"{{\nconst uint8_t *in = (const uint8_t *)s;\nconst long n = 0, r = 0;\n(void)n;\n"
        + "\n".join(calls) + "\n}"
    )  # fmt: skip
    return Code(body, tables, image.size, helpers)


def rounded(epilogue: Epilogue) -> Epilogue:
    """The same lines, each of whose products is rounded before it is added to anything."""
    lines = epilogue.lines.replace("const vf e", "vf e")
    parts = [part for part in lines.split("; ") if part]
    kept = [
        f"{part}; KEEP({part.split()[1]})" if part.startswith("vf e") else part for part in parts
    ]
    return replace(epilogue, key=f"k{epilogue.key}", lines="; ".join(kept) + "; ")
