"""Filters of 3 x 3 that are held in 1 or 2 bits, brought to Winograd's points where they are used.

A panel takes its points in parts: two rows of them at a time, those of the points p and -p, which
share their sums, and those of 0 and infinity. So what is spread stays in the second cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal, loop
from infer_native.kernels.gemm import MAX_COLUMNS, Epilogue, product
from infer_native.kernels.spread import planes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Panel
    from infer_native.levels import Levels
    from infer_native.program import Array

TAPS = 9
ROOM = 3 * 2**18  # bytes of a part
APART = 80  # floats between points, so that their places in a cache differ
COST = 120.0  # vector multiply-adds that take as long as bringing a vector of filters to all points


def widest(inputs: int, size: int, lanes: int) -> int:
    """Columns of a panel, so that a part of its points has room."""
    return max(1, min(MAX_COLUMNS, ROOM // (4 * 2 * (size + 2) * inputs * lanes)))


class Filters:
    """The panels of a layer.

    Args:
        levels: int8 [outputs, inputs, 3, 3] and scales.
        panels: how outputs are parted.
        matrix: [points, 3]: what a filter has at each point; 0 first, then pairs, infinity last.
        isa: with vectors.

    """

    def __init__(self, levels: Levels, panels: Sequence[Panel], matrix: Array, isa: Isa) -> None:
        self._isa, self._matrix, self._panels = isa, matrix, panels
        self._ternary, self.scale = levels.ternary, levels.scale
        self._inputs, self._n = levels.signs.shape[1], len(matrix)
        bits = [self._bits(levels.signs, p) for p in panels]
        self._at = dict(zip(panels, np.cumsum([0, *(b.size for b in bits)]).tolist(), strict=False))
        self.table: Array = np.concatenate(bits)
        most = max(p.tile.columns for p in panels)
        self.floats = 2 * self._n * (self._inputs * most * isa.lanes + APART)

    def _bits(self, signs: Array, panel: Panel) -> Array:
        """[inputs, columns, taps, lanes]."""
        lanes, columns = self._isa.lanes, panel.tile.columns
        first = panel.first * lanes
        chosen = signs[first : first + columns * lanes].reshape(-1, self._inputs, TAPS)
        chosen = np.pad(chosen, ((0, columns * lanes - len(chosen)), (0, 0), (0, 0)))
        order = chosen.reshape(columns, lanes, self._inputs, TAPS).transpose(2, 0, 3, 1)
        return planes(order.reshape(-1), ternary=self._ternary)

    def products(
        self, count: int, source: int, target: int, scale: str, helpers: dict[str, str]
    ) -> str:
        """C for `count` tiles: panel by panel, part by part, to w and then times the tiles at v."""
        lanes, n, lines = self._isa.lanes, self._n, []
        for panel in self._panels:
            tile = panel.tile
            name, text = product(tile, count, lanes, Epilogue())
            helpers |= text
            size = self._inputs * tile.columns * lanes + APART
            for first, second in self._parts():
                call = (
                    f"const long p = q < {n} ? q + {first * n} : q + {(second - 1) * n};\n"
                    f"{name}(v + p * {source}, w + q * {size}, t1, m + p * {target} + "
                    f"{panel.first * count * lanes}, {count // tile.rows}, {self._inputs}, "
                    f"{count * lanes}, {lanes}, {count * lanes}, 1, 1, 0, 0);"
                )
                spread = self._function(tile.columns, first, helpers)
                at = f"t0 + {self._at[panel]}, {scale} + {panel.first * lanes}"
                lines += [f"{spread}({at}, w, {self._inputs});", loop("q", 2 * n, call)]
        return "\n".join(lines)

    def _parts(self) -> list[tuple[int, int]]:
        """Pairs of rows of points."""
        return [(0, self._n - 1), *((row, row + 1) for row in range(1, self._n - 1, 2))]

    def _function(self, columns: int, row: int, helpers: dict[str, str]) -> str:
        """The two rows of points that begin with `row`, of a panel of some columns."""
        name = f"wg_spread{self._n}_{row}_{columns}{'t' if self._ternary else ''}"
        if name in helpers:
            return name
        zero = f"  const uint8_t *z = b + (inputs * {columns * TAPS} * VL + 7) / 8;\n"
        lines = []
        for j in range(columns):
            lines += [f"    {{ const vf s = LD(scale + {j} * VL);", *self._column(columns, row, j)]
            lines.append("    }")
        helpers[name] = (
            f"static void {name}(const uint8_t *b, const float *scale, float *o, long inputs) {{\n"
            f"  const long step = inputs * {columns} * VL + {APART};\n"
            f"{zero if self._ternary else ''}"
            "  for (long i = 0; i < inputs; i++) {\n" + "\n".join(lines) + "\n  }\n}\n"
        )
        return name

    def _column(self, columns: int, row: int, j: int) -> list[str]:
        lines = []
        for tap in range(TAPS):
            if row == 0 and tap // 3 == 1:
                continue  # neither 0 nor infinity has them
            at = f"(i * {columns} + {j}) * {TAPS} + {tap}"
            value = f"NXL(NXB(b, {at}), s)"
            value = f"NXZ(NXB(z, {at}), {value})" if self._ternary else value
            lines.append(f"      const vf g{tap // 3}_{tap % 3} = {value};")
        for c in range(3):
            made = self._pair(row, [f"g{r}_{c}" for r in range(3)], f"h{c}")
            lines += [f"      {line}" for line in made]
        for k in range(2):
            values = self._all([f"h{c}_{k}" for c in range(3)], f"u{k}")
            lines += [f"      {line}" for line in values]
            lines += [
                f"      ST(o + {k * self._n + q} * step + (i * {columns} + {j}) * VL, u{k}_{q});"
                for q in range(self._n)
            ]
        return lines

    def _pair(self, row: int, a: Sequence[str], name: str) -> list[str]:
        """Two rows of the matrix times a0, a1, a2 as name_0 and name_1."""
        if row == 0:
            first = _times(self._matrix[0, 0], a[0])
            return [f"const vf {name}_0 = {first}, {name}_1 = {a[2]};"]
        one, two, three = self._matrix[row]
        even = f"const vf {name}_e = {_times(one, a[0])} + {_times(three, a[2])};"
        odd = f"const vf {name}_o = {_times(two, a[1])};"
        both = f"const vf {name}_0 = {name}_e + {name}_o, {name}_1 = {name}_e - {name}_o;"
        return [even, odd, both]

    def _all(self, a: Sequence[str], name: str) -> list[str]:
        """All rows as name_0, name_1, ..."""
        last = self._n - 1
        lines = [f"const vf {name}_0 = {_times(self._matrix[0, 0], a[0])}, {name}_{last} = {a[2]};"]
        for row in range(1, last, 2):
            part = f"{name}p{row}"
            taken = f"const vf {name}_{row} = {part}_0, {name}_{row + 1} = {part}_1;"
            lines += [*self._pair(row, a, part), taken]
        return lines


def _times(factor: float, value: str) -> str:
    return value if factor == 1 else f"{literal(factor, 'float')} * {value}"
