"""Convolutions on NCHWc tensors: pointwise over whole images, others row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.cwriter import loop
from infer_native.kernels import Code
from infer_native.kernels.gemm import (
    MAX_COLUMNS,
    choose,
    fetched,
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


def conv(
    layer: Layer, isa: Isa, where: Window, weights: Array, bias: Array | None, epilogue: Epilogue
) -> Code:
    """Any dense 2-D convolution of a blocked input into a blocked output.

    Args:
        layer: its first input is x0, the operands of the epilogue are its inputs from x1 on.
        isa: with vectors.
        where: the geometry.
        weights: [outputs, inputs, kh, kw].
        bias: [outputs] or None.
        epilogue: what happens before a sum is stored.

    """
    x, y = layer.input(0), layer.output()
    lanes = isa.lanes
    (samples, blocks, height, width, _), (_, columns, rows, out, _) = x.shape, y.shape
    outputs, inputs, kh, kw = weights.shape
    padded = any(where.begins) or any(where.ends)
    line = width + (where.begins[1] + where.ends[1] if padded else 0)
    lines = height + (where.begins[0] + where.ends[0] if padded else 0)
    whole = kh == kw == 1 and where.strides == (1, 1) and not padded
    run = rows * out if whole else out
    levels = spreadable(weights)
    most = MAX_COLUMNS if levels is None else widest(kh * kw * inputs, lanes)
    panels = panels_of(choose(run, columns, isa.registers, isa.name == "avx512", most))
    helpers: dict[str, str] = {}
    by_tap = weights.transpose(0, 2, 3, 1).reshape(outputs, kh * kw, inputs)
    spread = None if levels is None else Spread(levels.of(by_tap), panels, isa)
    tables = [
        pack(by_tap, panels, lanes) if spread is None else spread.table,
        pad_columns(bias, columns, lanes), *epilogue.tables,
    ]  # fmt: skip
    calls, at = [], 0
    for panel in panels:
        tile = panel.tile
        fetch = fetched(run, tile, inputs, lanes) if whole and spread is None else 0
        name, text = product(tile, run, where.strides[1] * lanes, epilogue, fetch=fetch)
        helpers |= text
        place = f"{panel.first * rows * out * lanes} + r * {out * lanes}"
        after = at + tile.columns * lanes * inputs if panel is not panels[-1] else at
        ahead = f", t0 + {after}" if fetch else ""
        sample_out = f"n * {y.size // samples}"
        operands = epilogue.arguments(f"{sample_out} + {place}", 2)
        source = f"t0 + {at}" if spread is None else "w"
        call = (
            f"{name}(in + r * {where.strides[0] * line * lanes}, {source}, "
            f"t1 + {panel.first * lanes}, y0 + n * {y.size // samples} + {place}{operands}, "
            f"{run // tile.rows}, {inputs}, {lines * line * lanes}, {lanes}, {rows * out * lanes}, "
            f"{kh}, {kw}, {where.dilations[0] * line * lanes}, {where.dilations[1] * lanes}"
            f"{ahead});"
        )
        # Panels outside, rows inside: the weights of a panel are read once for all rows.
        call = loop("r", 1 if whole else rows, call)
        fill = "" if spread is None else f"{spread.call(panel, f't{len(tables)}', helpers)}\n"
        calls.append(fill + call)
        at += tile.columns * lanes * inputs * kh * kw
    body = "\n".join(calls)
    sample = f"x0 + n * {x.size // samples}"
    if padded:
        copy = _pad(blocks, height, width, where, lines, line, lanes)
        body = f"float *in = (float *)s;\n{copy.replace('XP', f'({sample})')}\n{body}"
    else:
        body = f"const float *in = {sample};\n{body}"
    scratch = 4 * blocks * lines * line * lanes if padded else 0
    if spread is not None:
        tables.append(pad_columns(spread.scale, columns, lanes))
        body, scratch = spread.within(body, scratch)
    return Code(loop("n", samples, body), tables, scratch, helpers)


def _pad(
    blocks: int, height: int, width: int, where: Window, lines: int, line: int, lanes: int
) -> str:
    """The input with a border of zeros, in the scratch memory."""
    (top, left), right = where.begins, where.ends[1]
    row = (
        f"float *d = in + (c * {lines} + r) * {line * lanes};\n"
        f"if (r < {top} || r >= {top + height}) {{ memset(d, 0, {4 * line * lanes}); continue; }}\n"
        f"memset(d, 0, {4 * left * lanes});\n"
        f"memcpy(d + {left * lanes}, XP + (c * {height} + r - {top}) * {width * lanes}, "
        f"{4 * width * lanes});\n"
        f"memset(d + {(left + width) * lanes}, 0, {4 * right * lanes});"
    )
    return loop("c", blocks, loop("r", lines, row))
