"""The register-blocked product: rows of A times panels of B, in tiles that stay in registers.

A tile is `rows` x `columns` accumulators, a column being one vector of outputs. Every convolution
and matrix product on vectors calls it; strides and sizes are arguments, only the step from one row
of A to the next is a constant of the code, so that it costs no register.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.program import Array, Layer

UNROLL = 4
LINE = 16  # floats of a cache line
FEW_ROWS = 64  # up to which the time of a panel is that of bringing its weights
LARGE_PANEL = 16384  # bytes from which on a panel is worth asking for ahead of time
MAX_COLUMNS = 8
_LATENCY = 8  # multiply-adds that must be under way to keep two units busy


@dataclass(frozen=True)
class Tile:
    """Rows and columns of accumulators."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Epilogue:
    """What happens to a sum before it is stored: lines of C that change the vector v.

    `operands` names the pointers that the lines read, each walks as the output does; `constants`
    are what they read as k[0], k[1], ..., so that layers that differ in them share their code;
    `channels` have a number for each output, number n of them is LD(h + (@COLUMN * all + n) * VL).
    """

    key: str = ""
    lines: str = ""
    operands: tuple[str, ...] = ()
    constants: tuple[float, ...] = ()
    channels: tuple[Array, ...] = field(default=(), compare=False)

    @property
    def parameters(self) -> str:
        """The end of a list of parameters."""
        return "".join(f", const float *{name}" for name in self._names)

    @property
    def passed_on(self) -> str:
        """The same as arguments, where the function has these parameters itself."""
        return "".join(f", {name}" for name in self._names)

    def arguments(self, place: str, table: int, channel: str | int) -> str:
        """The layer's inputs from x1 on at `place`, then the tables, from that channel on."""
        given = "".join(f", x{n} + {place}" for n in range(1, 1 + len(self.operands)))
        if self.constants:
            given, table = f"{given}, t{table}", table + 1
        return given + (f", t{table} + {len(self.channels)} * {channel}" if self.channels else "")

    def tables(self, columns: int, lanes: int, repeated: int = 1) -> list[Array]:
        """The table of the constants, if there are any, then that of the outputs."""
        found = [np.array(self.constants, np.float32)] if self.constants else []
        if self.channels:
            rows = [
                pad_columns(np.tile(c.reshape(-1), repeated), columns, lanes) for c in self.channels
            ]
            found.append(np.stack([r.reshape(columns, lanes) for r in rows], axis=1))
        return found

    @property
    def _names(self) -> tuple[str, ...]:
        return (
            *self.operands,
            *(("k",) if self.constants else ()),
            *(("h",) if self.channels else ()),
        )


@dataclass(frozen=True)
class Panel:
    """A tile for some of the columns: the first column, and how many there are."""

    first: int
    tile: Tile


@lru_cache(maxsize=4096)
def choose(
    rows: int, columns: int, registers: int, embedded: bool, width: int = 0,
    widest: int = MAX_COLUMNS,
) -> tuple[Tile, ...]:  # fmt: skip
    """Tiles for panels from left to right, with the least work by a count of multiply-adds.

    Args:
        rows: of the product that lie one after the other.
        columns: vectors of output channels.
        registers: of the processor.
        embedded: can it multiply by a number in memory without a register for it?
        width: columns of a tile, where that was measured; 0 for any.
        widest: the most columns of a tile that was not measured.

    """
    best: tuple[float, tuple[Tile, ...]] | None = None
    for each in (width,) if width else range(1, min(widest, columns) + 1):
        widths = [each] * (columns // each) + ([columns % each] if columns % each else [])
        found = [_best_height(rows, w, registers, embedded) for w in widths]
        cost = sum(c for c, _ in found)
        if best is None or cost < best[0]:
            best = cost, tuple(Tile(h, w) for w, (_, h) in zip(widths, found, strict=True))
    assert best is not None
    return best[1]


def measured(layer: Layer) -> int:
    """Columns of the layer's tiles, where `tune` found them; 0 where the count decides."""
    width: int = layer.attrs.get("width", 0)
    return width


def _best_height(rows: int, width: int, registers: int, embedded: bool) -> tuple[float, int]:
    # Compilers bring a number that several columns need into a register of its own.
    spare = 0 if embedded and width == 1 else 1
    most = max(1, (registers - width - spare) // width)
    options = []
    for height in range(1, min(most, rows) + 1):
        full, rest = divmod(rows, height)
        cost = full * _cost(height, width) + (_cost(rest, width) if rest else 0)
        options.append((cost, -height))
    cost, height = min(options)
    return cost, -height


def _cost(height: int, width: int) -> float:
    """Multiply-adds, or what hides their latency, then the loads of B and of A.

    A comes from farther away than B, and narrow panels read it more often.
    """
    return max(height * width, _LATENCY) + 0.35 * width + 0.15 * height


def panels_of(tiles: Sequence[Tile]) -> list[Panel]:
    """Each tile with the number of its first column."""
    first, panels = 0, []
    for tile in tiles:
        panels.append(Panel(first, tile))
        first += tile.columns
    return panels


def fetched(rows: int, tile: Tile, depth: int, lanes: int) -> int:
    """Cache lines of the next panel to ask for at each step, so that it is there in time."""
    floats = tile.columns * lanes * depth
    steps = -(-rows // tile.rows) * (depth // lanes) * (lanes // UNROLL)
    if rows > FEW_ROWS or rows < 2 or 4 * floats < LARGE_PANEL or not steps:
        return 0
    return -(-floats // (LINE * steps))


def pack(weights: Array, panels: Sequence[Panel], lanes: int, *, pairs: bool = False) -> Array:
    """[outputs, taps, inputs] as one panel after the other, each [taps, inputs, its outputs].

    With `pairs` two inputs of an output lie side by side as bfloat16: [taps, pairs, outputs, 2].
    """
    outputs, taps, inputs = weights.shape
    each = 2 if pairs else 1
    total = sum(p.tile.columns for p in panels) * lanes
    padded = np.zeros((total, taps, -(-inputs // each), each), weights.dtype)
    padded.reshape(total, taps, -1)[:outputs, :, :inputs] = weights
    parts = []
    for panel in panels:
        first = panel.first * lanes
        part = padded[first : first + panel.tile.columns * lanes]
        parts.append(np.ascontiguousarray(part.transpose(1, 2, 0, 3)).reshape(-1))
    packed = np.concatenate(parts)
    return short(packed) if pairs else packed


def short(array: Array) -> Array:
    """float32 rounded to bfloat16, to the nearest and even one; its bits as uint16."""
    bits: Array = array.astype(ml_dtypes.bfloat16).view(np.uint16)
    return bits


def pad_columns(vector: Array | None, columns: int, lanes: int) -> Array:
    """A bias with zeros up to whole vectors."""
    padded = np.zeros(columns * lanes, np.float32)
    if vector is not None:
        padded[: vector.size] = vector.reshape(-1)
    return padded


def product(
    tile: Tile,
    rows: int,
    step: int,
    epilogue: Epilogue,
    *,
    partial: bool = False,
    fetch: int = 0,
    pairs: bool = False,
) -> tuple[str, dict[str, str]]:
    """The name of the function for `rows` rows and its text; `step` is that of the rows of A.

    `void f(a, b, bias, o, <operands>, full, depth, aps, os, ops, kh, kw, rs, ks)`: `full` tiles of
    whole height, then the rows that are left; `depth` inputs in blocks of VL that are `aps` apart;
    outputs `os` apart from row to row and `ops` from column to column; taps `rs` and `ks` apart.
    With `partial` a last argument says how many lanes of the last column are stored; with `fetch`
    that many cache lines of the next panel, which is the last argument, are asked for at a time.
    With `pairs` a number of A or B is two of bfloat16: `depth` and the strides of A count them,
    blocks have VL / 2.
    """
    rest = rows % tile.rows
    mark = f"_{epilogue.key}" if epilogue.key else ""
    name = f"gemm_{tile.rows}x{tile.columns}r{rest}_s{step}{mark}{'_p' if partial else ''}"
    name += f"_f{fetch}" if fetch else ""
    name += "_h" if pairs else ""
    block = "(VL / 2)" if pairs else "VL"
    operands, given = epilogue.parameters, epilogue.passed_on
    extra, more = (", int part", ", part") if partial else ("", "")
    if fetch:
        extra, more = f"{extra}, const float *ahead", f"{more}, ahead"
    arguments = f"a, b, bias, o{given}, depth, aps, os, ops, kh, kw, rs, ks{more}"
    moves = " ".join(f"{o} += {tile.rows} * os;" for o in ("o", *epilogue.operands))
    if fetch:
        moves += f" ahead += {LINE * fetch} * (depth / {block}) * ({block} / {UNROLL});"
    tiles = [_tile(name, tile.rows, tile.columns, step, epilogue, partial, fetch, pairs)]
    last = ""
    if rest:
        tiles.append(_tile(name, rest, tile.columns, step, epilogue, partial, fetch, pairs))
        last = f"  {name}_{rest}({arguments});\n"
    text = (
        f"static void {name}(const float *a, const float *b, const float *bias, float *o{operands},"
        " long full, long depth, long aps, long os, long ops, long kh, long kw, long rs, "
        f"long ks{extra}) {{\n"
        f"  for (long i = 0; i < full; i++) {{\n    {name}_{tile.rows}({arguments});\n"
        f"    a += {tile.rows * step}; {moves}\n  }}\n{last}}}\n"
    )
    return name, {name: "\n".join(tiles) + "\n" + text}


def _tile(
    name: str, rows: int, columns: int, step: int, epilogue: Epilogue, partial: bool, fetch: int,
    pairs: bool,
) -> str:  # fmt: skip
    """The innermost function: all accumulators are variables of their own."""
    operands = epilogue.parameters
    extra = (", int part" if partial else "") + (", const float *ahead" if fetch else "")
    block = "(VL / 2)" if pairs else "VL"
    ask = " ".join(f"__builtin_prefetch(ahead + {LINE * n}, 0, 2);" for n in range(fetch))
    head = (
        f"static inline __attribute__((always_inline)) void {name}_{rows}(const float *a, "
        f"const float *restrict b, const float *bias, float *o{operands}, long depth, long aps, "
        f"long os, long ops, long kh, long kw, long rs, long ks{extra}) {{"
    )
    lines = [head]
    for j in range(columns):
        start = f"vf c0_{j} = LD(bias + {j} * VL)"
        lines.append("  " + start + "".join(f", c{m}_{j} = c0_{j}" for m in range(1, rows)) + ";")
    lines += [
        "  for (long y = 0; y < kh; y++) for (long x = 0; x < kw; x++) {",
        "    const float *p = a + y * rs + x * ks;",
        *(["    HIDE(p);"] if rows > 1 else []),  # gcc would carry numbers from tap to tap
        f"    for (long n = depth / {block}; n; n--) {{",
        "      const float *next = p + aps;",
        "#pragma GCC unroll 1",
        f"      for (int u = 0; u < {block}; u += {UNROLL}) {{",
        *([f"        {ask} ahead += {LINE * fetch};"] if fetch else []),
        *(f"        {line}" for line in _steps(rows, columns, step, pairs)),
        f"        b += {UNROLL * columns} * VL;",
        "      }",
        "      p = next;",
        "    }",
        f"    for (long n = depth % {block}; n; n--) {{",
        f"      {_step(rows, columns, step, 0, 0, pairs)}",
        "      p++;",
        "      HIDE(p);",  # else gcc carries numbers of overlapping rows to the next turn
        f"      b += {columns} * VL;",
        "    }",
        "  }",
    ]
    for m in range(rows):
        for j in range(columns):
            lines.append(f"  {_store(m, j, columns, epilogue, partial)}")
    return "\n".join([*lines, "}"])


def _steps(rows: int, columns: int, step: int, pairs: bool) -> list[str]:
    """Lines for UNROLL steps, after which p has moved on.

    Where rows overlap, a later step meets numbers of an earlier one. The compiler must not know:
    it would keep them in registers that the sums need. A later turn meets them in any case.
    """
    if step >= UNROLL or rows == 1:
        return [
            *(_step(rows, columns, step, u, u, pairs) for u in range(UNROLL)),
            f"p += {UNROLL};" + (" HIDE(p);" if rows > 1 else ""),
        ]
    return [f"{_step(rows, columns, step, 0, u, pairs)} p++; HIDE(p);" for u in range(UNROLL)]


def _step(rows: int, columns: int, step: int, k: int, line: int, pairs: bool) -> str:
    """Number k of each row times one line of the panel."""
    loads = " ".join(f"const vf b{j} = LD(b + {line * columns + j} * VL);" for j in range(columns))
    sums = " ".join(
        (
            f"{{ const vf v = VSET(p[{m * step + k}]); "
            if pairs
            else f"{{ const float v = p[{m * step + k}]; "
        )
        + " ".join(
            f"c{m}_{j} = BDOT(c{m}_{j}, b{j}, v);" if pairs else f"c{m}_{j} += b{j} * v;"
            for j in range(columns)
        )
        + " }"
        for m in range(rows)
    )
    return f"{{ {loads} {sums} }}"


def _store(m: int, j: int, columns: int, epilogue: Epilogue, partial: bool) -> str:
    at = f"{m} * os + {j} * ops"
    lines = epilogue.lines.replace("@AT", at).replace("@COLUMN", str(j))
    if partial and j == columns - 1:
        store = f"if (part == VL) ST(o + {at}, v); else memcpy(o + {at}, &v, 4 * (size_t)part);"
    else:
        store = f"ST(o + {at}, v);"
    return f"{{ vf v = c{m}_{j}; {lines}{store} }}"
