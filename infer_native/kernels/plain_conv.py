"""Convolutions that read a plain image: few input channels, or few output channels.

The lines of all channels lie side by side, so that a line of a filter is one run of numbers and
lines of filters are taps that follow each other: the product sees `kh * channels` taps with `kw`
inputs each. Where the output has few channels, a vector holds several neighbouring pixels of all
of them: filters are as many times repeated, each a stride farther.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop
from infer_native.kernels import Code
from infer_native.kernels.gemm import (
    MAX_COLUMNS,
    choose,
    measured,
    pack,
    pad_columns,
    panels_of,
    product,
)
from infer_native.kernels.spread import Spread, spreadable, widest

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Epilogue
    from infer_native.program import Array, Layer
    from infer_runtime.ops.window import Window

WORTH = 1.3  # how much less work there must be


def neighbours(where: Window, outputs: int, isa: Isa) -> int:
    """Pixels that share a vector with the least work; 1 where it does not pay."""
    (_, kw), (_, stride), dilation = where.kernel, where.strides, where.dilations
    if dilation != (1, 1) or 2 * outputs > isa.lanes:
        return 1
    gains = {f: f * kw / (kw + (f - 1) * stride) for f in range(2, isa.lanes // outputs + 1)}
    best = max(gains, key=lambda f: gains[f])
    return best if gains[best] >= WORTH else 1


def conv_of_plain(
    layer: Layer, isa: Isa, where: Window, weights: Array, bias: Array | None, epilogue: Epilogue
) -> Code:
    """From a plain image into a blocked one; arguments as those of `blocked_conv.conv`."""
    x, y, lanes = layer.input(0), layer.output(), isa.lanes
    (samples, inputs, height, width), (_, columns, rows, out, _) = x.shape, y.shape
    kh = weights.shape[2]
    line = width + where.begins[1] + where.ends[1]
    levels = spreadable(weights) if where.dilations[1] == 1 else None
    most = MAX_COLUMNS if levels is None else widest(weights[0].size, lanes)
    embedded = isa.name == "avx512"
    panels = panels_of(choose(out, columns, isa.registers, embedded, measured(layer), most))
    # Dilated filters become dense ones with zeros between: rare, and then still correct.
    span = (weights.shape[3] - 1) * where.dilations[1] + 1
    dense = np.zeros((*weights.shape[:3], span), np.float32)
    dense[..., :: where.dilations[1]] = weights
    spread = None if levels is None else Spread(levels.of(_filters(dense)), panels, isa)
    packed = pack(_filters(dense), panels, lanes) if spread is None else spread.table
    tables = [packed, pad_columns(bias, columns, lanes), *epilogue.tables(columns, lanes)]
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for panel in panels:
        name, text = product(panel.tile, out, where.strides[1], epilogue)
        helpers |= text
        place = f"n * {y.size // samples} + {panel.first * rows * out * lanes} + r * {out * lanes}"
        operands = epilogue.arguments(place, 2, panel.first * lanes)
        row = f"r * {where.strides[0] * inputs * line}"
        source = f"t0 + {at}" if spread is None else "w"
        call = (
            f"{name}(in + {row}, {source}, t1 + {panel.first * lanes}, y0 + {place}{operands}, "
            f"{out // panel.tile.rows}, {span}, {lanes}, {lanes}, {rows * out * lanes}, "
            f"{kh * inputs}, 1, {line}, 0);"
        )
        if spread is not None:
            call = f"{spread.call(panel, f't{len(tables)}', helpers)}\n{loop('r', rows, call)}"
        calls.append(call)
        at += panel.tile.columns * lanes * span * kh * inputs
    each = "\n".join(calls)
    body = _lines(layer, where, line) + "\n" + (loop("r", rows, each) if spread is None else each)
    scratch = 4 * (_count(where, height) * inputs * line + lanes)
    if spread is not None:
        tables.append(pad_columns(spread.scale, columns, lanes))
        body, scratch = spread.within(body, scratch)
    return Code(loop("n", samples, f"float *in = (float *)s;\n{body}"), tables, scratch, helpers)


def narrow_conv(
    layer: Layer, isa: Isa, where: Window, weights: Array, bias: Array | None, epilogue: Epilogue,
    factor: int,
) -> Code:  # fmt: skip
    """From a plain image into a plain one of few channels, `factor` pixels to a vector."""
    samples, inputs, height, width = layer.input(0).shape
    _, outputs, rows, out = layer.output().shape
    kh, kw = weights.shape[2:]
    stride, lanes = where.strides[1], isa.lanes
    span, vectors = kw + (factor - 1) * stride, -(-out // factor)
    line = max(width + where.begins[1] + where.ends[1], (vectors - 1) * stride * factor + span)
    wide = np.zeros((factor * outputs, inputs, kh, span), np.float32)
    for pixel in range(factor):
        first = pixel * stride
        wide[pixel * outputs : (pixel + 1) * outputs, ..., first : first + kw] = weights
    repeated = None if bias is None else np.tile(bias.reshape(-1), factor)
    (panel,) = panels_of(choose(vectors, 1, isa.registers, isa.name == "avx512"))
    packed = pack(_filters(wide), [panel], lanes)
    tables = [packed, pad_columns(repeated, 1, lanes), *epilogue.tables(1, lanes, factor)]
    name, helpers = product(panel.tile, vectors, stride * factor, epilogue)
    row = f"r * {where.strides[0] * inputs * line}"
    at = f"i / {factor} * {lanes} + i % {factor} * {outputs} + c"
    if factor * outputs == lanes:
        at = f"i * {outputs} + c"
    spread = loop("i", out, f"d[i] = g[{at}];")
    call = (
        f"{name}(in + {row}, t0, t1, g{epilogue.arguments('', 2, 0)}, "
        f"{vectors // panel.tile.rows}, {span}, {lanes}, {lanes}, {lanes}, {kh * inputs}, 1, "
        f"{line}, 0);\n"
        + loop("c", outputs, f"float *d = y0 + ((n * {outputs} + c) * {rows} + r) * {out};\n"
               + spread)
    )  # fmt: skip
    lines = _count(where, height) * inputs * line + lanes
    body = f"float *in = (float *)s, *g = in + {lines};\n{_lines(layer, where, line)}\n" + loop(
        "r", rows, call
    )
    return Code(loop("n", samples, body), tables, 4 * (lines + vectors * lanes), helpers)


def _filters(dense: Array) -> Array:
    """[outputs, inputs, kh, span] as [outputs, kh * inputs, span]."""
    outputs, inputs, kh, span = dense.shape
    return dense.transpose(0, 2, 1, 3).reshape(outputs, kh * inputs, span)


def _count(where: Window, height: int) -> int:
    return height + where.begins[0] + where.ends[0]


def _lines(layer: Layer, where: Window, line: int) -> str:
    """[row, channel, column] with a border of zeros, from [channel, row, column]."""
    _, inputs, height, width = layer.input(0).shape
    top, left = where.begins
    row = (
        f"float *d = in + (r * {inputs} + c) * {line};\n"
        f"if (r < {top} || r >= {top + height}) {{ memset(d, 0, {4 * line}); continue; }}\n"
        f"for (long i = 0; i < {left}; i++) d[i] = 0;\n"
        f"memcpy(d + {left}, x0 + ((n * {inputs} + c) * {height} + r - {top}) * {width}, "
        f"{4 * width});\n"
        f"for (long i = {left + width}; i < {line}; i++) d[i] = 0;"
    )
    return loop("r", _count(where, height), loop("c", inputs, row))
