"""Convolutions of any rank, group, stride and dilation: whole rows at a time, in plain layout."""

from __future__ import annotations

import dataclasses
from math import prod
from typing import TYPE_CHECKING

from infer_native.cwriter import loop, nest
from infer_native.kernels import Code, kernel
from infer_native.kernels.geometry import Reach, over_taps, window_of
from infer_native.kernels.spread import unpacked
from infer_runtime.ops.window import Window

LONG = 16  # taps of a row that are still written out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.program import Layer


def rows(where: Window, size: Sequence[int], product: str, *, x: str = "xp", y: str = "yp") -> str:
    """y[row] += product over all taps of one pair of planes; X stands for the input element."""
    out, width = where.out[-1], size[-1]
    if where.kernel[-1] > LONG:
        return _long_rows(where, size, product, x, y)

    def row(reach: Reach) -> str:
        offset = reach.tap * where.dilations[-1] - where.begins[-1]
        at = f"{x}[line * {width} + i * {where.strides[-1]} + {offset}]".replace("+ -", "- ")
        line = f"{y}[row * {out} + i] += {product.replace('X', at)};"
        weight = f"const {{w}} w = wp[tap + {reach.tap}];\n"
        return "{\n" + weight + loop("i", reach.end, line, reach.first) + "\n}"

    return over_taps(where, size, row)


def _long_rows(where: Window, size: Sequence[int], product: str, x: str, y: str) -> str:
    """A filter too long to be written out: sums in double precision, an output at a time."""
    out, width, step = where.out[-1], size[-1], where.dilations[-1]
    outer = dataclasses.replace(where, kernel=(*where.kernel[:-1], 1))

    def row(reach: Reach) -> str:
        del reach
        element = product.replace("X", f"{x}[line * {width} + at]").replace("w", "wp[TAP + k]", 1)
        test = f"const long at = from + k * {step};\nif (at < 0 || at >= {width}) continue;\n"
        taps = loop("k", where.kernel[-1], f"{test}sum += (double)({element});")
        taps = taps.replace("TAP", f"tap * {where.kernel[-1]}")
        body = (
            f"const long from = i * {where.strides[-1]} - {where.begins[-1]};\n"
            f"double sum = 0;\n{taps}\n{y}[row * {out} + i] += sum;"
        )
        return loop("i", out, body)

    return over_taps(outer, size, row, every_output=True)


@kernel("Conv")
def Conv(layer: Layer) -> Code:
    """Bias first, then every tap adds a weighted row."""
    x, w = layer.input(0), layer.input(1)
    where = window_of(layer, x.shape[2:], w.shape[2:])
    bias = "x2[m]" if layer.optional(2) is not None else "0"
    held = None if w.root.data is None else unpacked(w.root.data.reshape(w.shape))
    if held is None:
        return Code(planes(layer, where, bias, "w * X", x.ctype))
    body = planes(layer, where, bias, "w * X", x.ctype, filters=(held.fill("m"), held.row))
    return Code(body, held.tables, held.scratch)


def planes(
    layer: Layer, where: Window, bias: str, product: str, wtype: str,
    filters: tuple[str, str] | None = None,
) -> str:  # fmt: skip
    """Loops over samples, output channels and the input channels of their group.

    `filters` is C that makes the filter of channel m, and where it lies then.
    """
    x, w, y = layer.input(0), layer.input(1), layer.output()
    group = layer.attrs.get("group", 1)
    pixels, inner, taps = prod(where.out), prod(x.shape[2:]), prod(where.kernel)
    each, mine = w.shape[0] // group, w.shape[1]
    add = rows(where, x.shape[2:], product).replace("{w}", wtype)
    fill, first = filters or ("", f"x1 + m * {mine * taps}")
    source = (
        f"const {x.ctype} *xp = x0 + (n * {x.shape[1]} + m / {each} * {mine} + c) * {inner};\n"
        f"const {w.ctype} *wp = {first} + c * {taps};\n{add}"
    )
    body = (
        f"{fill}"
        f"{y.ctype} *yp = y0 + (n * {w.shape[0]} + m) * {pixels};\n"
        + loop("i", pixels, f"yp[i] = {bias};")
        + "\n"
        + nest(("c",), (mine,), source)
    )
    return nest(("n", "m"), (x.shape[0], w.shape[0]), body)


@kernel("ConvTranspose")
def ConvTranspose(layer: Layer) -> Code:
    """Every input element adds its weighted taps to the output."""
    x, w, y = layer.input(0), layer.input(1), layer.output()
    size, out, kernel_ = x.shape[2:], y.shape[2:], w.shape[2:]
    rank, group = len(size), layer.attrs.get("group", 1)
    strides = layer.attrs.get("strides") or [1] * rank
    dilations = layer.attrs.get("dilations") or [1] * rank
    begins = _transposed_begins(layer, size, out, kernel_, strides, dilations)
    # With input and output in each other's place this is the geometry of a convolution.
    ends = tuple(
        max(0, (n - 1) * s + (k - 1) * d + 1 - b - o)
        for n, s, k, d, b, o in zip(size, strides, kernel_, dilations, begins, out, strict=True)
    )
    where = Window(tuple(kernel_), tuple(strides), tuple(dilations), tuple(begins), ends, size)
    width, line_width = size[-1], out[-1]

    def row(reach: Reach) -> str:
        offset = reach.tap * dilations[-1] - begins[-1]
        at = f"yp[line * {line_width} + i * {strides[-1]} + {offset}]".replace("+ -", "- ")
        line = f"{at} += wp[tap + {reach.tap}] * xp[row * {width} + i];"
        return loop("i", reach.end, line, reach.first)

    each, mine = w.shape[1], x.shape[1] // group
    bias = "x2[m]" if layer.optional(2) is not None else "0"
    source = (
        f"const long c = m / {each} * {mine} + g;\n"
        f"const {x.ctype} *xp = x0 + (n * {x.shape[1]} + c) * {prod(size)};\n"
        f"const {x.ctype} *wp = x1 + (c * {each} + m % {each}) * {prod(kernel_)};\n"
        + over_taps(where, out, row)
    )
    body = (
        f"{y.ctype} *yp = y0 + (n * {y.shape[1]} + m) * {prod(out)};\n"
        + loop("i", prod(out), f"yp[i] = {bias};")
        + "\n"
        + loop("g", mine, source)
    )
    return Code(nest(("n", "m"), (x.shape[0], y.shape[1]), body))


def _transposed_begins(
    layer: Layer, size: Sequence[int], out: Sequence[int], kernel_: Sequence[int],
    strides: Sequence[int], dilations: Sequence[int],
) -> list[int]:  # fmt: skip
    """Padding at the front, which is cut off the output; see the ONNX text of ConvTranspose."""
    rank, attrs = len(size), layer.attrs
    auto = attrs.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID") and "output_shape" not in attrs:
        return list((attrs.get("pads") or [0] * rank)[:rank]) if auto == "NOTSET" else [0] * rank
    extra = attrs.get("output_padding") or [0] * rank
    begins = []
    for i in range(rank):
        full = strides[i] * (size[i] - 1) + extra[i] + (kernel_[i] - 1) * dilations[i] + 1
        total = max(full - out[i], 0)
        begins.append(total - total // 2 if auto == "SAME_LOWER" else total // 2)
    return begins
