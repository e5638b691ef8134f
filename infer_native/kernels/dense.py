"""Matrix products on vectors: A row by row as it lies, B in panels, packed here or at run time."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import address, broadcast_strides, loop, names, nest
from infer_native.kernels import Code, few_rows
from infer_native.kernels.gemm import (
    MAX_COLUMNS,
    Epilogue,
    choose,
    measured,
    pack,
    pad_columns,
    panels_of,
    product,
)
from infer_native.kernels.short_weights import Short, shorts_of
from infer_native.kernels.spread import Spread, spreadable, widest

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Panel
    from infer_native.kernels.spread import Kept
    from infer_native.program import Array, Layer, Stored

PLAIN = Epilogue()
MIN_WORK = 256  # multiply-adds; below it the generic kernel is as fast


def weighted(
    layer: Layer, isa: Isa, matrix: Array, bias: Array | None, stored: Stored | None = None
) -> Code:
    """Rows of x0 times a constant matrix [inputs, outputs], plus a bias [outputs]."""
    inputs, outputs = matrix.shape
    rows = layer.input(0).size // inputs
    columns, by_output = -(-outputs // isa.lanes), matrix.T.reshape(outputs, 1, inputs)
    levels = None if isa.bf16 else spreadable(by_output)
    if levels is not None and rows <= few_rows.MOST:
        return few_rows.few_rows(layer, isa, levels, bias)
    shorts = (
        None
        if isa.bf16 or levels is not None
        else shorts_of(stored, matrix, turned=bool(layer.attrs.get("transB", 0)))
    )
    kept = levels is not None or shorts is not None
    most = widest(inputs, isa.lanes) if kept else MAX_COLUMNS
    panels = panels_for(rows, outputs, isa, measured(layer), most, pairs=isa.bf16)
    start = pad_columns(bias, columns, isa.lanes)
    epilogue: Epilogue = layer.attrs.get("epilogue", PLAIN)
    helpers: dict[str, str] = {}
    tables = [start, *epilogue.tables(columns, isa.lanes)]
    if levels is not None:
        scale = pad_columns(levels.scale, columns, isa.lanes)
        spread = Spread(levels, panels, isa)
        return _filled(spread, scale, panels, rows, outputs, isa, epilogue, tables)
    if shorts is not None:
        short = Short(shorts, panels, isa)
        return _filled(short, short.scale, panels, rows, outputs, isa, epilogue, tables)
    tables = [pack(by_output, panels, isa.lanes, pairs=isa.bf16), *tables]
    if isa.bf16:
        return _rounded(panels, rows, inputs, outputs, isa, helpers, tables, epilogue)
    each = calls(
        panels, rows, inputs, outputs, isa, helpers, "t0", "t1", "x0", "y0", epilogue=epilogue
    )
    return Code("\n".join(each), tables, 0, helpers)


def _filled(
    kept: Kept, scale: Array, panels: list[Panel], rows: int, outputs: int, isa: Isa,
    epilogue: Epilogue, tables: list[Array],
) -> Code:  # fmt: skip
    """The same of weights that are kept short; `tables` are those between them and their scale."""
    helpers: dict[str, str] = {}
    each = calls(
        panels, rows, kept.depth, outputs, isa, helpers, "", "t1", "x0", "y0", epilogue=epilogue
    )
    fills = [kept.call(panel, f"t{len(tables) + 1}", helpers) for panel in panels]
    both = "\n".join(f"{fill}\n{call}" for fill, call in zip(fills, each, strict=True))
    body, scratch = kept.within(both, 0)
    return Code(body, [kept.table, *tables, scale], scratch, helpers)


def _rounded(
    panels: list[Panel], rows: int, inputs: int, outputs: int, isa: Isa, helpers: dict[str, str],
    tables: list[Array], epilogue: Epilogue,
) -> Code:  # fmt: skip
    """The same in bfloat16: x0 is rounded to pairs first."""
    units = -(-inputs // 2)
    row = f"nx_pair_row(x0 + i * {inputs}, in + i * {units}, {inputs});"
    first = loop("i", rows, row)
    if inputs % isa.lanes == 0:
        first = f"nx_pairs(x0, in, {rows * inputs // isa.lanes});"
    each = calls(
        panels, rows, units, outputs, isa, helpers, "(const float *)t0", "t1", "in", "y0",
        pairs=True, epilogue=epilogue,
    )  # fmt: skip
    scratch = 4 * rows * units + 4 * isa.lanes
    body = "\n".join(["float *in = (float *)s;", first, *each])
    return Code(body, tables, scratch, helpers)


def batched(layer: Layer, isa: Isa) -> Code:
    """Both matrices computed: B is brought into panels first, once for each of its matrices."""
    a, b, y = layer.input(0).shape, layer.input(1).shape, layer.output().shape
    rows, inputs, outputs = a[-2], a[-1], b[-1]
    panels = panels_for(rows, outputs, isa, measured(layer))
    columns = -(-outputs // isa.lanes)
    index, lead = names(len(y) - 2, "b"), y[:-2]
    at = [
        address(index, broadcast_strides((*shape[:-2], size), (*lead, size))[:-1])
        for shape, size in ((a, rows * inputs), (b, inputs * outputs), (y, rows * outputs))
    ]
    helpers: dict[str, str] = {}
    zeros = np.zeros(columns * isa.lanes, np.float32)
    body = (
        f"const float *ap = x0 + ({at[0]});\nconst float *bp = x1 + ({at[1]});\n"
        f"float *yp = y0 + ({at[2]});\nfloat *q = (float *)s;\n"
        + _packing(panels, inputs, outputs, isa)
        + "\n".join(calls(panels, rows, inputs, outputs, isa, helpers, "q", "t0", "ap", "yp"))
    )
    scratch = 4 * columns * isa.lanes * inputs
    return Code(nest(index, lead, body), [zeros], scratch, helpers)


def panels_for(
    rows: int, outputs: int, isa: Isa, width: int = 0, most: int = MAX_COLUMNS, *,
    pairs: bool = False,
) -> list[Panel]:  # fmt: skip
    """How the columns of a product are parted."""
    columns, embedded = -(-outputs // isa.lanes), isa.name == "avx512" and not pairs
    return panels_of(choose(rows, columns, isa.registers, embedded, width, most))


def _packing(panels: list[Panel], inputs: int, outputs: int, isa: Isa) -> str:
    lines, at = [], 0
    for panel in panels:
        width, first = panel.tile.columns * isa.lanes, panel.first * isa.lanes
        real = min(width, outputs - first)
        row = (
            f"memcpy(q + {at} + k * {width}, bp + k * {outputs} + {first}, {4 * real});"
            + (f"\nmemset(q + {at} + k * {width} + {real}, 0, {4 * (width - real)});"
               if real < width else "")
        )  # fmt: skip
        lines.append(loop("k", inputs, row))
        at += width * inputs
    return "\n".join(lines) + "\n"


def calls(
    panels: list[Panel], rows: int, inputs: int, outputs: int, isa: Isa, helpers: dict[str, str],
    weights: str, bias: str, a: str, y: str, *, pairs: bool = False,
    epilogue: Epilogue = PLAIN,
) -> list[str]:  # fmt: skip
    """C for each panel: y[rows, outputs] = a[rows, inputs] times weights; without them w."""
    lines, at, lanes = [], 0, isa.lanes
    block = lanes // 2 if pairs else lanes
    for panel in panels:
        tile = panel.tile
        end = (panel.first + tile.columns) * lanes
        partial = end > outputs
        name, text = product(tile, rows, inputs, epilogue, partial=partial, pairs=pairs)
        helpers |= text
        first = panel.first * lanes
        given = epilogue.arguments(str(first), 2, first)
        part = f", {lanes - (end - outputs)}" if partial else ""
        source = f"{weights} + {at}" if weights else "w"
        lines.append(
            f"{name}({a}, {source}, {bias} + {panel.first * lanes}, "
            f"{y} + {panel.first * lanes}{given}, {rows // tile.rows}, {inputs}, {block}, "
            f"{outputs}, {lanes}, 1, 1, 0, 0{part});"
        )
        at += tile.columns * lanes * inputs
    return lines


def work(layer: Layer) -> int:
    """Multiply-adds of a product."""
    return prod(layer.output().shape) * layer.input(0).shape[-1]
