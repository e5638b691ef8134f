"""Transposed convolutions whose taps do not overlap, on NCHWc tensors.

Where stride and filter have the same size, each tap fills pixels of its own: a pointwise product
for every tap, whose results lie a stride apart. Few output channels share one vector with all
taps, and the result is plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop
from infer_native.kernels import Code
from infer_native.kernels.gemm import Epilogue, choose, pack, pad_columns, panels_of, product

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.program import Array, Layer


def apart(layer: Layer) -> bool:
    """Is it such a convolution: two axes, one group, no padding, filter and stride alike?"""
    attrs, filters = layer.attrs, layer.input(1).shape
    plain = attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID") and "output_shape" not in attrs
    empty = [attrs.get("pads"), attrs.get("output_padding")]
    if not plain or any(v and any(v) for v in empty) or attrs.get("group", 1) != 1:
        return False
    dilations = attrs.get("dilations") or [1, 1]
    return list(filters[2:]) == list(attrs.get("strides") or [1, 1]) and not any(
        d > 1 for d in dilations
    )


def shares(layer: Layer, isa: Isa) -> bool:
    """Do all taps of all output channels fit into one vector?"""
    _, outputs, kh, kw = layer.input(1).shape
    return bool(outputs * kh * kw <= isa.lanes)


def wide(layer: Layer, isa: Isa, weights: Array, bias: Array | None) -> Code:
    """Blocked in and out; weights [inputs, outputs, kh, kw], bias [outputs] or None."""
    x, y, lanes = layer.input(0), layer.output(), isa.lanes
    samples, _, height, width, _ = x.shape
    _, columns, rows, out, _ = y.shape
    inputs, outputs, kh, kw = weights.shape
    panels = panels_of(choose(width, columns, isa.registers, isa.name == "avx512"))
    taps = [weights[:, :, i, j].T.reshape(outputs, 1, inputs) for i in range(kh) for j in range(kw)]
    packed = np.concatenate([pack(t, panels, lanes) for t in taps])
    tables = [packed, pad_columns(bias, columns, lanes)]
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for panel in panels:
        name, text = product(panel.tile, width, lanes, Epilogue())
        helpers |= text
        place = f"{panel.first * rows * out * lanes} + (r * {kh} + i) * {out * lanes} + j * {lanes}"
        tap = f"(i * {kw} + j) * {columns * lanes * inputs} + {at}"
        calls.append(
            f"{name}(x0 + n * {x.size // samples} + r * {width * lanes}, t0 + {tap}, "
            f"t1 + {panel.first * lanes}, y0 + n * {y.size // samples} + {place}, "
            f"{width // panel.tile.rows}, {inputs}, {height * width * lanes}, {kw * lanes}, "
            f"{rows * out * lanes}, 1, 1, 0, 0);"
        )
        at += panel.tile.columns * lanes * inputs
    body = loop("r", height, loop("i", kh, loop("j", kw, "\n".join(calls))))
    return Code(loop("n", samples, body), tables, 0, helpers)


def shared(layer: Layer, isa: Isa, weights: Array, bias: Array | None) -> Code:
    """Blocked in, plain out: a row of inputs gives `kh` rows, which are put in order."""
    x, lanes = layer.input(0), isa.lanes
    samples, _, height, width, _ = x.shape
    _, outputs, rows, out = layer.output().shape
    inputs, _, kh, kw = weights.shape
    matrix = weights.transpose(2, 3, 1, 0).reshape(-1, 1, inputs)
    (panel,) = panels_of(choose(width, 1, isa.registers, isa.name == "avx512"))
    start = None if bias is None else np.tile(bias.reshape(-1), kh * kw)
    tables = [pack(matrix, [panel], lanes), pad_columns(start, 1, lanes)]
    name, helpers = product(panel.tile, width, lanes, Epilogue())
    spread = f"float *d = y0 + ((n * {outputs} + c) * {rows} + r * {kh} + i) * {out} + j;\n" + loop(
        "k", width, f"d[k * {kw}] = g[k * {lanes} + (i * {kw} + j) * {outputs} + c];"
    )
    body = (
        f"{name}(x0 + n * {x.size // samples} + r * {width * lanes}, t0, t1, g, "
        f"{width // panel.tile.rows}, {inputs}, {height * width * lanes}, {lanes}, {lanes}, "
        f"1, 1, 0, 0);\n" + loop("c", outputs, loop("i", kh, loop("j", kw, spread)))
    )
    text = "float *g = (float *)s;\n" + loop("n", samples, loop("r", height, body))
    return Code(text, tables, 4 * width * lanes, helpers)
