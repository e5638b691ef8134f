"""Dense 3 x 3 convolutions by Winograd's minimal filtering, on NCHWc tensors.

A tile of m x m outputs comes from (m + 2)^2 products for each pair of channels instead of 9 m^2
(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Polynomials are
interpolated at 0, infinity and +-p for each p of POINTS. With 5/8 and 3/2 the largest error of
F(4, 3) over 256 channels is 7e-6 of outputs around 1, a quarter of that with 1 and 2; for F(2, 3)
it is 3e-6. All constants of the transforms are exact in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal, loop
from infer_native.kernels import Code
from infer_native.kernels.gemm import (
    MAX_COLUMNS,
    Epilogue,
    choose,
    fetched,
    measured,
    pack,
    pad_columns,
    panels_of,
    product,
)
from infer_native.kernels.spread import spreadable
from infer_native.kernels.spread_winograd import COST, Filters, widest

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Panel
    from infer_native.program import Array, Layer
    from infer_runtime.ops.window import Window

POINTS: dict[int, tuple[float, ...]] = {2: (1.0,), 4: (0.625, 1.5)}
SECOND_CACHE = 2**20  # bytes
STREAM = 6.0  # bytes from beyond it in the time of one vector multiply-add
SPREAD = COST * STREAM / 16
SHARE = 0.6  # of it for tiles, the rest for weights and what else is there


def conv(
    layer: Layer, isa: Isa, where: Window, weights: Array, bias: Array | None, epilogue: Epilogue,
    size: int,
) -> Code:  # fmt: skip
    """Tiles of `size` x `size` outputs; the other arguments are those of `blocked_conv.conv`."""
    x, y, lanes = layer.input(0), layer.output(), isa.lanes
    samples, tiles = x.shape[0], -(-y.shape[2] // size) * -(-y.shape[3] // size)
    inputs, columns = weights.shape[1], y.shape[1]
    levels = spreadable(weights)
    count = chunk(tiles, x.shape[1] * lanes, columns * lanes, size, levels is not None)
    most = MAX_COLUMNS if levels is None else widest(inputs, size, lanes)
    embedded = isa.name == "avx512"
    panels = panels_of(choose(count, columns, isa.registers, embedded, measured(layer), most))
    matrix = _filter_matrix(size)
    filters = None if levels is None else Filters(levels, panels, matrix, isa)
    tables = [
        _packed(weights, panels, size, lanes) if filters is None else filters.table,
        np.zeros(columns * lanes, np.float32),
        pad_columns(bias, columns, lanes),
        *epilogue.tables(columns, lanes),
    ]
    helpers = {**_input_helpers(size), **_output_helper(size, epilogue)}
    whole, rest = tiles - tiles % count, tiles % count
    stages = []
    for first, step in ((0, count), (whole, rest)):
        if not step:
            continue
        source, target = x.shape[1] * step * lanes, columns * step * lanes
        if filters is None:
            products = _products(panels, isa, step, inputs, source, target, helpers)
            products = loop("p", (size + 2) ** 2, products)
        else:
            products = filters.products(step, source, target, f"t{len(tables)}", helpers)
        stage = _stage(layer, isa, where, epilogue, size, step, products)
        end = whole if first == 0 else tiles
        stages.append(f"for (long g0 = {first}; g0 < {end}; g0 += {step}) {{\n{stage}\n}}")
    head = (
        f"const float *xp = x0 + n * {x.size // samples};\n"
        f"float *v = (float *)s, *m = v + {(size + 2) ** 2 * x.shape[1] * count * lanes};\n"
    )
    scratch = 4 * (size + 2) ** 2 * (x.shape[1] + columns) * count * lanes
    if filters is not None:
        tables.append(pad_columns(filters.scale, columns, lanes))
        head += f"float *w = (float *)s + {scratch // 4};\n"
        scratch += 4 * filters.floats
    return Code(loop("n", samples, head + "\n".join(stages)), tables, scratch, helpers)


def chunk(tiles: int, inputs: int, outputs: int, size: int, spread: bool = False) -> int:
    """Tiles at a time, so that least has to come from beyond the second cache.

    Every chunk reads all weights again, or spreads them, which takes `SPREAD` bytes' time for each;
    tiles that do not fit are written and read once more.
    """
    points = (size + 2) ** 2
    weights = (SPREAD if spread else 4 * points) * inputs * outputs
    each = 4 * points * (inputs + outputs)
    best = (float("inf"), tiles)
    for chunks in range(1, tiles + 1):
        count = -(-tiles // chunks)
        far = 2 * tiles * each if count * each > SHARE * SECOND_CACHE else 0
        best = min(best, (-(-tiles // count) * weights + far, count))
        if not far:
            break
    return best[1]


def transformed(weights: Array, size: int) -> Array:
    """[outputs, inputs, 3, 3] at the points: [(size + 2)^2, outputs, inputs]."""
    g = _filter_matrix(size)
    points: Array = np.einsum("pi,ocij,qj->pqoc", g, weights.astype(np.float64), g)
    flat: Array = points.reshape(-1, *weights.shape[:2]).astype(np.float32)
    return flat


def _packed(weights: Array, panels: list[Panel], size: int, lanes: int) -> Array:
    """Panels of one point after those of another."""
    points = transformed(weights, size)
    return np.concatenate([pack(p[:, None, :], panels, lanes) for p in points])


def _filter_matrix(size: int) -> Array:
    """Of each point x its powers 1, x, x^2, over the product of x's distances to the others."""
    points = [0.0, *(sign * p for p in POINTS[size] for sign in (1, -1))]
    rows = [
        [x**k / np.prod([x - other for other in points if other != x]) for k in range(3)]
        for x in points
    ]
    return np.array([*rows, [0, 0, 1]])


def _stage(
    layer: Layer, isa: Isa, where: Window, epilogue: Epilogue, size: int, count: int, products: str
) -> str:
    """C for `count` tiles from number g0 on: to the points, the products, and back."""
    (_, blocks, height, width, _), (_, columns, rows, out, _) = (
        layer.input(0).shape, layer.output().shape
    )  # fmt: skip
    lanes, samples = isa.lanes, layer.input(0).shape[0]
    place = f"const long ty = (g0 + i) / {-(-out // size)}, tx = (g0 + i) % {-(-out // size)};\n"
    source, target = blocks * count * lanes, columns * count * lanes
    read = place + (
        f"const long top = ty * {size} - {where.begins[0]}, left = tx * {size} - "
        f"{where.begins[1]};\n"
        + loop(
            "c", blocks,
            f"wg_in{size}(xp + c * {height * width * lanes}, {height}, {width}, top, left, "
            f"v + (c * {count} + i) * VL, {source});",
        )
    )  # fmt: skip
    ahead = f"n * {layer.output().size // samples} + at"
    write = place + loop(
        "c", columns,
        f"const long at = c * {rows * out * lanes} + (ty * {out} + tx) * {size * lanes};\n"
        f"wg_out{size}{_mark(epilogue)}(m + (c * {count} + i) * VL, {target}, t2 + c * VL, "
        f"y0 + {ahead}{epilogue.arguments(ahead, 3, 'c * VL')}, {out * lanes}, "
        f"{rows} - ty * {size}, {out} - tx * {size});",
    )  # fmt: skip
    return "\n".join([loop("i", count, read), products, loop("i", count, write)])


def _products(
    panels: list[Panel], isa: Isa, count: int, inputs: int, source: int, target: int,
    helpers: dict[str, str],
) -> str:  # fmt: skip
    """At point p: tiles times channels, with the tile heights of the panels."""
    lanes, at, calls = isa.lanes, 0, []
    total = sum(p.tile.columns for p in panels) * lanes * inputs
    for panel in panels:
        tile = panel.tile
        fetch = fetched(count, tile, inputs, lanes)
        name, text = product(tile, count, lanes, Epilogue(), fetch=fetch)
        helpers |= text
        size = tile.columns * lanes * inputs
        ahead = f", t0 + p * {total} + {at + size}" if fetch else ""
        calls.append(
            f"{name}(v + p * {source}, t0 + p * {total} + {at}, t1, "
            f"m + p * {target} + {panel.first * count * lanes}, {count // tile.rows}, {inputs}, "
            f"{count * lanes}, {lanes}, {count * lanes}, 1, 1, 0, 0{ahead});"
        )
        at += size
    return "\n".join(calls)


def _input_helpers(size: int) -> dict[str, str]:
    """A tile of the image to the points; what lies beyond the border is zero."""
    n = size + 2
    name = f"wg_in{size}"
    lines = _to_points(size, "d")
    load = " ".join(f"const vf d{j} = LD(p + i * ld + {j} * VL);" for j in range(n))
    down = " ".join(f"const vf d{i} = t[{i}][j];" for i in range(n))
    rows = " ".join(f"t[i][{k}] = {e};" for k, e in enumerate(lines))
    points = " ".join(f"ST(v + ({k} * {n} + j) * xs, {e});" for k, e in enumerate(lines))
    inner = (
        f"static inline void {name}_all(const float *p, long ld, float *v, long xs) {{\n"
        f"  vf t[{n}][{n}];\n"
        f"  for (long i = 0; i < {n}; i++) {{ {load} {rows} }}\n"
        f"  for (long j = 0; j < {n}; j++) {{ {down} {points} }}\n}}\n"
    )
    outer = (
        f"static void {name}(const float *x, long height, long width, long top, long left, "
        "float *v, long xs) {\n"
        f"  if (top >= 0 && left >= 0 && top + {n} <= height && left + {n} <= width) {{\n"
        f"    {name}_all(x + (top * width + left) * VL, width * VL, v, xs);\n    return;\n  }}\n"
        f"  float e[{n * n} * VL];\n  memset(e, 0, sizeof e);\n"
        f"  for (long i = 0; i < {n}; i++) for (long j = 0; j < {n}; j++) {{\n"
        "    const long r = top + i, c = left + j;\n"
        "    if (r >= 0 && r < height && c >= 0 && c < width)\n"
        f"      ST(e + (i * {n} + j) * VL, LD(x + (r * width + c) * VL));\n  }}\n"
        f"  {name}_all(e, {n} * VL, v, xs);\n}}\n"
    )
    return {name: inner + outer}


def _output_helper(size: int, epilogue: Epilogue) -> dict[str, str]:
    """The points of a tile back to outputs, of which `ny` x `nx` are there."""
    n, name = size + 2, f"wg_out{size}{_mark(epilogue)}"
    lines = _from_points(size, "d")
    load = " ".join(f"const vf d{i} = LD(m + ({i} * {n} + j) * xs);" for i in range(n))
    across = " ".join(f"const vf d{j} = t[i][{j}];" for j in range(n))
    columns = " ".join(f"t[{k}][j] = {e};" for k, e in enumerate(lines))
    sums = " ".join(f"u[{k}] = {e} + b;" for k, e in enumerate(lines))
    end = epilogue.lines.replace("@AT", "i * ld + j * VL").replace("@COLUMN", "0")
    store = f"for (long j = 0; j < nx; j++) {{ vf v = u[j]; {end}ST(o + i * ld + j * VL, v); }}"
    operands, given = epilogue.parameters, epilogue.passed_on
    parameters = f"(const float *m, long xs, const float *bias, float *o{operands}, long ld, "
    inner = (
        f"static inline __attribute__((always_inline)) void {name}_part{parameters}long ny, "
        f"long nx) {{\n  const vf b = LD(bias);\n  vf t[{size}][{n}];\n"
        f"  for (long j = 0; j < {n}; j++) {{ {load} {columns} }}\n"
        f"  for (long i = 0; i < ny; i++) {{ {across} vf u[{size}]; {sums} {store} }}\n}}\n"
    )
    outer = (
        f"static void {name}{parameters}long ny, long nx) {{\n"
        f"  if (ny >= {size} && nx >= {size})\n"
        f"    {name}_part(m, xs, bias, o{given}, ld, {size}, {size});\n  else\n"
        f"    {name}_part(m, xs, bias, o{given}, ld, ny < {size} ? ny : {size}, "
        f"nx < {size} ? nx : {size});\n}}\n"
    )
    return {name: inner + outer}


def _mark(epilogue: Epilogue) -> str:
    return f"_{epilogue.key}" if epilogue.key else ""


def _to_points(size: int, d: str) -> list[str]:
    """Expressions in d0, d1, ...: the polynomial that vanishes at all points but one, for each."""
    if size == 2:
        return [f"{d}2 - {d}0", f"{d}1 + {d}2", f"{d}2 - {d}1", f"{d}3 - {d}1"]
    p, q = POINTS[size]
    both, sum_ = _number(p * p * q * q), _number(p * p + q * q)
    found = [f"{both} * {d}0 - {sum_} * {d}2 + {d}4"]
    for mine, other in ((p, q), (q, p)):
        square, at = _number(other * other), _number(mine)
        even, odd = f"({d}4 - {square} * {d}2)", f"{at} * ({d}3 - {square} * {d}1)"
        found += [f"{even} + {odd}", f"{even} - {odd}"]
    return [*found, f"{both} * {d}1 - {sum_} * {d}3 + {d}5"]


def _from_points(size: int, d: str) -> list[str]:
    """Expressions in d0, d1, ...: power k of each point, the last is infinity."""
    found = []
    for k in range(size):
        terms = [f"{d}0"] if k == 0 else []
        for number, point in enumerate(POINTS[size]):
            pair = f"({d}{2 * number + 1} {'-' if k % 2 else '+'} {d}{2 * number + 2})"
            terms.append(pair if point**k == 1 else f"{_number(point**k)} * {pair}")
        found.append(" + ".join(terms + ([f"{d}{size + 1}"] if k == size - 1 else [])))
    return found


def _number(value: float) -> str:
    assert np.float32(value) == value
    return literal(value, "float")
