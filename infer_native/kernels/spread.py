"""Weights that are held in 1 or 2 bits and become float32 where they are used, panel by panel.

A panel in the blob is its signs, a bit for each of its floats in their order, then, where weights
may be 0, as many bits that say which are not. It is spread into memory that the next panel has too,
small enough to stay in the second cache, so that the product that follows is the usual one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_native.kernels.gemm import MAX_COLUMNS, pack
from infer_native.levels import levels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Panel
    from infer_native.levels import Levels
    from infer_native.program import Array, Layer

LEAST = 32  # products of an output: below it scales and code outweigh what bits save
ROOM = 2**19  # bytes of a panel as floats
ALIGNMENT = 64
BYTE = 8


def spreadable(weights: Array) -> Levels | None:
    """What weights [M, ...] are held as; None where they stay floats."""
    return levels_of(weights) if weights[0].size >= LEAST else None


def levels_of_layer(layer: Layer) -> Levels | None:
    """The same for the constant weights of a convolution, or of a product of two matrices."""
    data, shape = layer.input(1).root.data, layer.input(1).shape
    if data is None or (layer.op != "Conv" and len(shape) != 2):
        return None
    weights = data.reshape(shape)
    plain = layer.op == "Conv" or layer.attrs.get("transB", 0)
    return spreadable(weights if plain else weights.T)


def widest(depth: int, lanes: int) -> int:
    """Columns of a panel with `depth` floats in each lane."""
    return max(1, min(MAX_COLUMNS, ROOM // (4 * depth * lanes)))


class Kept:
    """The panels of a layer, short in the blob, floats at w while one is used.

    Args:
        parts: what the blob has of each panel.
        panels: how outputs are parted.
        depth: floats of a lane.
        isa: with vectors.

    """

    def __init__(
        self, parts: Sequence[Array], panels: Sequence[Panel], depth: int, isa: Isa
    ) -> None:
        self._isa, self.depth = isa, depth
        starts = np.cumsum([0, *(part.size for part in parts)]).tolist()
        self._at = dict(zip(panels, starts, strict=False))
        self.table: Array = np.concatenate(parts)
        self.floats = max(p.tile.columns for p in panels) * isa.lanes * depth

    def call(self, panel: Panel, scale: str, helpers: dict[str, str]) -> str:
        """C that fills the floats at w with a panel of the table t0."""
        raise NotImplementedError

    def within(self, body: str, scratch: int) -> tuple[str, int]:
        """C that has w, behind `scratch` bytes of its own; the bytes of both."""
        start = -(-scratch // ALIGNMENT) * ALIGNMENT
        return f"float *w = (float *)(s + {start});\n{body}", start + 4 * self.floats


class Spread(Kept):
    """Of weights with 1 or 2 bits.

    Args:
        levels: int8 [outputs, taps, inputs] and scales.
        panels: how outputs are parted.
        isa: with vectors.

    """

    def __init__(self, levels: Levels, panels: Sequence[Panel], isa: Isa) -> None:
        self._ternary, self.scale = levels.ternary, levels.scale
        bits = [self._bits(levels.signs, p, isa.lanes) for p in panels]
        super().__init__(bits, panels, levels.signs[0].size, isa)

    def _bits(self, signs: Array, panel: Panel, lanes: int) -> Array:
        first = panel.first * lanes
        chosen = signs[first : first + panel.tile.columns * lanes]
        flat = pack(chosen, [type(panel)(0, panel.tile)], lanes)
        return planes(flat, ternary=self._ternary)

    def call(self, panel: Panel, scale: str, helpers: dict[str, str]) -> str:
        """C that fills the floats at w with a panel of the table t0."""
        columns = panel.tile.columns
        name = f"nx_spread{columns}{'t' if self._ternary else ''}"
        helpers.setdefault(name, _function(name, columns, ternary=self._ternary))
        first = panel.first * self._isa.lanes
        return f"{name}(t0 + {self._at[panel]}, {scale} + {first}, w, {self.depth});"


@dataclass(frozen=True)
class Unpacked:
    """Weights for scalar code: a row of them at a time becomes floats in the scratch memory."""

    tables: list[Array]
    depth: int
    row: str = "w"

    @property
    def scratch(self) -> int:
        """Bytes."""
        return 4 * self.depth

    def fill(self, number: str) -> str:
        """C that makes row `number`."""
        zeros = f"t2 + {number} * {-(-self.depth // BYTE)}" if len(self.tables) > 2 else "0"
        return (
            f"float *{self.row} = (float *)s;\n"
            f"nx_levels(t0 + {number} * {-(-self.depth // BYTE)}, {zeros}, t1[{number}], "
            f"{self.row}, {self.depth});\n"
        )


def unpacked(weights: Array) -> Unpacked | None:
    """Of weights [M, ...]; None where they stay floats."""
    if not len(weights) or (levels := spreadable(weights)) is None:
        return None
    flat = levels.signs.reshape(len(weights), -1)
    tables: list[Array] = [np.packbits(flat > 0, axis=1, bitorder="little"), levels.scale]
    if levels.ternary:
        tables.append(np.packbits(flat != 0, axis=1, bitorder="little"))
    return Unpacked(tables, flat.shape[1])


def helpers() -> dict[str, str]:
    """Numbers from bits: `z`, where there is one, says which are not 0."""
    return {
        "nx_levels": (
            "static void nx_levels(const uint8_t *b, const uint8_t *z, float s, float *w, long n) "
            "{\n  for (long i = 0; i < n; i++) {\n"
            "    const float v = b[i / 8] >> i % 8 & 1 ? s : -s;\n"
            "    w[i] = z && !(z[i / 8] >> i % 8 & 1) ? 0 : v;\n  }\n}"
        )
    }


def planes(flat: Array, *, ternary: bool) -> Array:
    """Bits of -1, 0 and 1 in their order, each plane in whole bytes."""
    found = [np.packbits(flat > 0, bitorder="little")]
    if ternary:
        found.append(np.packbits(flat != 0, bitorder="little"))
    return np.concatenate(found)


def _function(name: str, columns: int, *, ternary: bool) -> str:
    scales = " ".join(f"const vf s{j} = LD(scale + {j} * VL);" for j in range(columns))
    head, lines = "", []
    if ternary:
        head = f"  const uint8_t *z = b + (steps * {columns} * VL + 7) / 8;\n"
    for j in range(columns):
        at = f"i * {columns} + {j}"
        value = f"NXL(NXB(b, {at}), s{j})"
        value = f"NXZ(NXB(z, {at}), {value})" if ternary else value
        lines.append(f"    ST(o + ({at}) * VL, {value});")
    return (
        f"static void {name}(const uint8_t *b, const float *scale, float *o, long steps) {{\n"
        f"{head}  {scales}\n  for (long i = 0; i < steps; i++) {{\n"
        + "\n".join(lines)
        + "\n  }\n}\n"
    )
