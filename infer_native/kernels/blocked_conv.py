"""Convolutions on NCHWc tensors: pointwise over whole images, others row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.cwriter import loop
from infer_native.kernels import Code
from infer_native.kernels.gemm import (
    MAX_COLUMNS,
    choose,
    fetched,
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
    lines, line = height + where.begins[0] + where.ends[0], width + where.begins[1] + where.ends[1]
    whole = kh == kw == 1 and where.strides == (1, 1) and not padded
    run = rows * out if whole else out
    embedded, pairs = isa.name == "avx512" and not isa.bf16, isa.bf16
    levels = None if pairs else spreadable(weights)
    most = MAX_COLUMNS if levels is None else widest(kh * kw * inputs, lanes)
    panels = panels_of(choose(run, columns, isa.registers, embedded, measured(layer), most))
    helpers: dict[str, str] = {}
    by_tap = weights.transpose(0, 2, 3, 1).reshape(outputs, kh * kw, inputs)
    spread = None if levels is None else Spread(levels.of(by_tap), panels, isa)
    # A number of the input, of which a block has `block`, is one channel of a pixel, or two.
    depth, block = (-(-inputs // 2), lanes // 2) if pairs else (inputs, lanes)
    table = "(const float *)t0" if pairs else "t0"
    tables = [
        pack(by_tap, panels, lanes, pairs=pairs) if spread is None else spread.table,
        pad_columns(bias, columns, lanes), *epilogue.tables(columns, lanes),
    ]  # fmt: skip
    calls, at = [], 0
    for panel in panels:
        tile = panel.tile
        fetch = fetched(run, tile, depth, block) if whole and spread is None else 0
        name, text = product(
            tile, run, where.strides[1] * block, epilogue, fetch=fetch, pairs=pairs
        )
        helpers |= text
        place = f"{panel.first * rows * out * lanes} + r * {out * lanes}"
        after = at + tile.columns * lanes * depth if panel is not panels[-1] else at
        ahead = f", {table} + {after}" if fetch else ""
        sample_out = f"n * {y.size // samples}"
        operands = epilogue.arguments(f"{sample_out} + {place}", 2, panel.first * lanes)
        source = f"{table} + {at}" if spread is None else "w"
        call = (
            f"{name}(in + r * {where.strides[0] * line * block}, {source}, "
            f"t1 + {panel.first * lanes}, y0 + n * {y.size // samples} + {place}{operands}, "
            f"{run // tile.rows}, {depth}, {lines * line * block}, {lanes}, {rows * out * lanes}, "
            f"{kh}, {kw}, {where.dilations[0] * line * block}, {where.dilations[1] * block}"
            f"{ahead});"
        )
        # Panels outside, rows inside: the weights of a panel are read once for all rows.
        call = loop("r", 1 if whole else rows, call)
        fill = "" if spread is None else f"{spread.call(panel, f't{len(tables)}', helpers)}\n"
        calls.append(fill + call)
        at += tile.columns * lanes * depth * kh * kw
    body = "\n".join(calls)
    sample = f"x0 + n * {x.size // samples}"
    body = f"{_read(layer, where, inputs, sample, pairs=pairs)}\n{body}"
    scratch = 4 * blocks * lines * line * block if padded or pairs else 0
    if spread is not None:
        tables.append(pad_columns(spread.scale, columns, lanes))
        body, scratch = spread.within(body, scratch)
    return Code(loop("n", samples, body), tables, scratch, helpers)


def _read(layer: Layer, where: Window, inputs: int, sample: str, *, pairs: bool) -> str:
    """C that has the input of a sample at `in`: as it lies, or with a border, or as pairs."""
    _, blocks, height, width, lanes = layer.input(0).shape
    (top, left), (bottom, right) = where.begins, where.ends
    padded, real = any(where.begins) or any(where.ends), inputs % lanes
    if not padded and not pairs:
        return f"const float *in = {sample};"
    geometry = (blocks, height, width, where, height + top + bottom, width + left + right, lanes)
    if not pairs:
        copy = _pad(*geometry)
    elif padded:
        copy = _pad_rounded(*geometry, real)
    else:
        copy = _rounded(blocks, height * width, lanes, real)
    return f"float *in = (float *)s;\n{copy.replace('XP', f'({sample})')}"


def _rounded(blocks: int, pixels: int, lanes: int, real: int) -> str:
    """All of the input as pairs; `real` channels of the last block count, or all where it is 0."""
    whole = (blocks - 1 if real else blocks) * pixels
    text = f"nx_pairs(XP, in, {whole});"
    if real:
        places = f"XP + {whole * lanes}, in + {whole * lanes // 2}"
        text += f"\nnx_pair_part({places}, {pixels}, {real});"
    return text


def _pad(
    blocks: int, height: int, width: int, where: Window, lines: int, line: int, lanes: int
) -> str:
    """The input with a border of zeros, in the scratch memory."""
    copy = f"memcpy(d + {where.begins[1] * lanes}, x, {4 * width * lanes});"
    return _bordered(blocks, height, width, where, lines, line, lanes, lanes, copy)


def _pad_rounded(
    blocks: int, height: int, width: int, where: Window, lines: int, line: int, lanes: int,
    real: int,
) -> str:  # fmt: skip
    """The same as pairs; `real` as in `_rounded`."""
    place = f"d + {where.begins[1] * lanes // 2}"
    copy = f"nx_pairs(x, {place}, {width});"
    if real:
        copy = f"if (c == {blocks - 1}) nx_pair_part(x, {place}, {width}, {real}); else {copy}"
    return _bordered(blocks, height, width, where, lines, line, lanes, lanes // 2, copy)


def _bordered(
    blocks: int, height: int, width: int, where: Window, lines: int, line: int, lanes: int,
    block: int, copy: str,
) -> str:  # fmt: skip
    (top, left), right = where.begins, where.ends[1]
    row = (
        f"float *d = in + (c * {lines} + r) * {line * block};\n"
        f"if (r < {top} || r >= {top + height}) {{ memset(d, 0, {4 * line * block}); continue; }}\n"
        f"memset(d, 0, {4 * left * block});\n"
        f"const float *x = XP + (c * {height} + r - {top}) * {width * lanes};\n{copy}\n"
        f"memset(d + {(left + width) * block}, 0, {4 * right * block});"
    )
    return loop("c", blocks, loop("r", lines, row))
