"""Integer layers on plain tensors, in scalar code: what they mean on every machine."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal, loop, nest
from infer_native.kernels import Code, kernel
from infer_native.kernels.conv import rows
from infer_native.kernels.geometry import window_of

if TYPE_CHECKING:
    from infer_native.integer import Linear, Mean, Product, Sum
    from infer_native.program import Array, Layer
    from infer_native.slopes import Slopes


@kernel("_QConv")
def QConv(layer: Layer) -> Code:
    """Sums of (x - zero) * w in int32, rounded once; the folded zero point is taken back."""
    linear: Linear = layer.attrs["linear"]
    x, weights = layer.input(0), linear.weights
    where = window_of(layer, x.shape[2:], weights.shape[2:])
    group = layer.attrs.get("group", 1)
    pixels, inner, taps = prod(where.out), prod(x.shape[2:]), prod(where.kernel)
    each, mine = weights.shape[0] // group, weights.shape[1]
    zero = linear.zero_in
    sums = weights.reshape(weights.shape[0], -1).astype("int64").sum(axis=1)
    bias = (linear.bias + zero * sums).astype("int32")
    shifted = "(int32_t)X" if zero == 0 else f"((int32_t)X - {zero})"
    add = rows(where, x.shape[2:], f"(int32_t)w * {shifted}").replace("{w}", "int8_t")
    source = (
        f"const uint8_t *xp = x0 + (n * {x.shape[1]} + m / {each} * {mine} + c) * {inner};\n"
        f"const int8_t *wp = t0 + (m * {mine} + c) * {taps};\n{add}"
    )
    body = (
        "int32_t *yp = (int32_t *)s;\n"
        + loop("i", pixels, "yp[i] = t1[m];")
        + "\n"
        + nest(("c",), (mine,), source)
        + f"\nuint8_t *q = y0 + (n * {weights.shape[0]} + m) * {pixels};\n"
        + loop("i", pixels, f"q[i] = nx_quantize_uint8_t((float)yp[i] * t2[m], {linear.zero_out});")
    )
    body = nest(("n", "m"), (x.shape[0], weights.shape[0]), body)
    return Code(body, [weights, bias, linear.scale], 4 * pixels)


@kernel("_QAdd")
def QAdd(layer: Layer) -> Code:
    """The rounding of ONNX Runtime: both products are fused with their sums."""
    sum_: Sum = layer.attrs["sum"]
    a, b, c = (literal(v, "float") for v in (sum_.ratio_a, sum_.ratio_b, sum_.shift))
    value = f"fmaf((float)x0[i], {a}, fmaf((float)x1[i], {b}, {c}))"
    line = f"y0[i] = nx_quantize_uint8_t({value}, 0);"
    return Code(loop("i", layer.output().size, line))


@kernel("_QTable")
def QTable(layer: Layer) -> Code:
    """One lookup for each byte, whatever its type."""
    t = layer.output().ctype
    line = f"y0[i] = ({t})t0[(uint8_t)x0[i]];"
    return Code(loop("i", layer.output().size, line), [layer.attrs["table"]])


@kernel("_QSlopes")
def QSlopes(layer: Layer) -> Code:
    """Two lines for each channel, of a plain or a blocked image."""
    how: Slopes = layer.attrs["slopes"]
    x = layer.input(0)
    samples, blocks, height, width, *_ = x.shape
    lanes = x.block or 1
    step = (
        f"const long at = ((n * {blocks} + c) * {height * width} + i) * {lanes} + k;\n"
        f"const int32_t d = (int32_t)x0[at] - {how.zero};\n"
        f"const float f = d < 0 ? t1[c * {lanes} + k] : t0[c * {lanes} + k];\n"
        f"y0[at] = nx_quantize_uint8_t((float)d * f, {how.zero_out});"
    )
    body = nest(("i",), (height * width,), loop("k", lanes, step))
    tables = [padded_channels(f, blocks * lanes) for f in (how.up, how.down)]
    return Code(nest(("n", "c"), (samples, blocks), body), tables)


def padded_channels(factors: Array, count: int) -> Array:
    """Factors for whole blocks: one for all, or those of the channels and zeros."""
    if factors.size == 1:
        return np.full(count, factors.item(), np.float32)
    return np.pad(factors, (0, count - factors.size))


def lines_of(lines: Slopes, columns: int, lanes: int) -> Array:
    """Both factors, column by column: [columns, 2, lanes]."""
    both = [padded_channels(f, columns * lanes).reshape(-1, lanes) for f in (lines.up, lines.down)]
    return np.stack(both, axis=1)


@kernel("_QMul")
def QMul(layer: Layer) -> Code:
    """Exact products, rounded once; the second image may have one pixel."""
    how: Product = layer.attrs["product"]
    x, other = layer.input(0), layer.input(1)
    if x.shape == other.shape:
        return Code(loop("i", x.size, "y0[i] = " + _times(how, "x0[i]", "x1[i]")))
    channels, pixels = prod(x.shape[:2]), prod(x.shape[2:])
    if x.block:
        pixels = prod(x.shape[2:4])
        line = _times(how, f"x0[(c * {pixels} + i) * {x.block} + k]", f"x1[c * {x.block} + k]")
        body = loop("k", x.block, f"y0[(c * {pixels} + i) * {x.block} + k] = {line}")
        return Code(nest(("c", "i"), (channels, pixels), body))
    at = f"c * {pixels} + i"
    line = f"y0[{at}] = " + _times(how, f"x0[{at}]", "x1[c]")
    return Code(nest(("c", "i"), (channels, pixels), line))


def _times(how: Product, a: str, b: str) -> str:
    both = f"(float)(((int32_t){a} - {how.zero_a}) * ((int32_t){b} - {how.zero_b}))"
    scale, zero = literal(how.scale, "float"), literal(how.zero_out, "float")
    return f"nx_quantize_uint8_t(fmaf({both}, {scale}, {zero}), 0);"


@kernel("_QMatMul")
def QMatMul(layer: Layer) -> Code:
    """As QGemm, rounded; with the attribute `shift` a constant row is added and rounded again."""
    linear: Linear = layer.attrs["linear"]
    outputs, inputs = linear.weights.shape
    dot = loop("k", inputs, f"sum += (int32_t)x0[i * {inputs} + k] * t0[j * {inputs} + k];")
    value = f"nx_quantize_uint8_t((float)sum * t2[j], {linear.zero_out})"
    tables = [linear.weights, linear.bias, linear.scale]
    if (shift := layer.attrs.get("shift")) is not None:
        ratio = literal(shift.ratio, "float")
        value = f"nx_quantize_uint8_t(fmaf((float){value}, {ratio}, t3[j]), 0)"
        tables.append(shift.shift)
    body = f"int32_t sum = t1[j];\n{dot}\ny0[i * {outputs} + j] = {value};"
    return Code(nest(("i", "j"), (layer.input(0).size // inputs, outputs), body), tables)


@kernel("_QMean")
def QMean(layer: Layer) -> Code:
    """The exact sum of a plane, rounded once."""
    mean: Mean = layer.attrs["mean"]
    x = layer.input(0)
    count = prod(x.shape[2:])
    scale = literal(mean.scale, "float")
    body = (
        f"int32_t sum = {-count * mean.zero_in};\n"
        + loop("i", count, f"sum += x0[c * {count} + i];")
        + f"\ny0[c] = nx_quantize_uint8_t((float)sum * {scale}, {mean.zero_out});"
    )
    return Code(loop("c", prod(x.shape[:2]), body))


@kernel("_QGemm")
def QGemm(layer: Layer) -> Code:
    """Real outputs: the integer sum times its scale."""
    linear: Linear = layer.attrs["linear"]
    outputs, inputs = linear.weights.shape
    m = layer.input(0).size // inputs
    dot = loop("k", inputs, f"sum += (int32_t)x0[i * {inputs} + k] * t0[j * {inputs} + k];")
    body = f"int32_t sum = t1[j];\n{dot}\ny0[i * {outputs} + j] = (float)sum * t2[j];"
    return Code(nest(("i", "j"), (m, outputs), body), [linear.weights, linear.bias, linear.scale])
