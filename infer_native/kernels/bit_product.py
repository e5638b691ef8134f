"""The innermost loops of binary layers: every lane counts bits for one output channel.

Products are rounded before anything is added to them: the results are those of the reference, bit
for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.kernels.bits import WORD, packed
from infer_native.kernels.gemm import Epilogue

if TYPE_CHECKING:
    from infer_native.binarised import Binary
    from infer_native.isa import Isa
    from infer_native.kernels.bits import Image, Runs, Signs, Target
    from infer_native.kernels.gemm import Panel, Tile
    from infer_native.program import Array, Layer
    from infer_runtime.ops.window import Window

TABLES = 6  # of every layer


class Product:
    """The parts of a layer that its panels share."""

    def __init__(
        self, layer: Layer, isa: Isa, where: Window | None, image: Image, runs: Runs,
        target: Target, signs: list[Signs],
    ) -> None:  # fmt: skip
        self.how: Binary = layer.attrs["binary"]
        self.isa, self.image, self.runs, self.target, self.signs = isa, image, runs, target, signs
        self.epilogue: Epilogue = layer.attrs.get("epilogue", Epilogue())
        self.ternary = self.how.levels.ternary
        self.kernel = (1, 1) if where is None else where.kernel
        self.strides = (0, 1) if where is None else where.strides
        self.down = 0 if where is None else where.dilations[0] * image.line * image.pitch
        self.out, self.rows = (image.line, 1) if where is None else (where.out[1], where.out[0])

    @property
    def free(self) -> int:
        """Registers for sums and weights."""
        return self.isa.registers - 1 - (2 if self.ternary else self.runs.rest > 0)

    def words(self, panel: Panel) -> int:
        """Of the weights of a panel."""
        planes = 2 if self.ternary else 1
        taps = self.kernel[0] * self.runs.count * self.runs.words
        return taps * planes * panel.tile.columns * self.isa.lanes

    def weights(self, panels: list[Panel], group: int) -> Array:
        """Panels one after the other: [runs, words, plane, outputs]."""
        signs, lanes = self.how.levels.signs, self.isa.lanes
        m, c, kh, kw = signs.shape
        each = m // group
        wide = (self.runs.bytes if self.runs.count == kw else self.image.pitch) * 8
        by_run = np.zeros((m, kh, kw, wide), np.int8)
        by_run[..., :c] = signs.transpose(0, 2, 3, 1)
        by_run = by_run.reshape(m, kh * self.runs.count, -1)
        parts = []
        for number in range(group):
            for panel in panels:
                first, size = number * each + panel.first * lanes, panel.tile.columns * lanes
                chosen = by_run[first : min(first + size, (number + 1) * each)]
                chosen = np.pad(chosen, ((0, size - len(chosen)), (0, 0), (0, 0)))
                planes = [packed(chosen, self.runs.words)]
                if self.ternary:
                    planes.append(packed(chosen != 0, self.runs.words))
                parts.append(np.stack(planes, axis=2).reshape(-1))
        return np.concatenate(parts)

    def tables(self, columns: int) -> list[Array]:
        """After those of every layer: of the epilogue, then limits of the signs."""
        found = self.epilogue.tables(columns, self.isa.lanes)
        return [*found, *(s.limits for s in self.signs)]

    def call(
        self, panel: Panel, first: int, at: int, offset: int, columns: int, helpers: dict[str, str]
    ) -> str:
        """C that computes a row of outputs from column `first` on, weights from word `at` on."""
        lanes, target = self.isa.lanes, self.target
        last = first + panel.tile.columns == columns
        name, text = self.function(panel.tile, columns, part=target.part if last else 0)
        helpers[name] = text
        sample, row = columns * target.column, self.out * target.step
        place = f"n * {sample} + {first * target.column} + r * {row}"
        given = f", y0 + {place}" if target.stored else ""
        given += self.epilogue.arguments(place, TABLES, first * lanes)
        number = TABLES + len(self.epilogue.tables(columns, lanes))
        for k, signs in enumerate(self.signs):
            image = signs.image
            given += (
                f", y{k + 1} + n * {image.size} + ({image.first} + r * {image.line}) * "
                f"{image.pitch} + {first * lanes // 8}, t{number + k} + {first * lanes}"
            )
        line = f"r * {self.strides[0] * self.image.line * self.image.pitch} + {offset}"
        return (
            f"{name}(in + {line}, t0 + {at}, t1 + t2[r] * {columns * lanes} + {first * lanes}, t3, "
            f"t4 + {first * lanes}, t5 + {first * lanes}{given});"
        )

    def function(self, tile: Tile, columns: int, part: int) -> tuple[str, str]:
        """For a row of outputs of the columns of a tile."""
        images = "".join(f"_b{s.image.pitch}" for s in self.signs)
        name = (
            f"bits_{tile.rows}x{tile.columns}_{'x'.join(map(str, self.kernel))}_s{self.strides[1]}"
            f"_d{self.down}_{self.runs.count}_{self.runs.step}_w{self.runs.bytes}_o{self.out}"
            f"_c{columns}_r{self.rows}_p{self.image.pitch}_{part}{'t' if self.ternary else ''}"
            f"{'' if self.target.stored else 'n'}{self.epilogue.key}{images}"
        )
        full, rest = divmod(self.out, tile.rows)
        step = tile.rows * self.target.step
        moves = [f"a += {tile.rows * self.strides[1] * self.image.pitch};",
                 f"column += {tile.rows};"]  # fmt: skip
        moves += [f"{o} += {step};" for o in self._walking()]
        moves += [f"b{k} += {tile.rows * s.image.pitch};" for k, s in enumerate(self.signs)]
        text = (
            f"static void {name}(const uint8_t *a, const uint32_t *weights, const int32_t *start, "
            "const int32_t *column, const float *scale, const float *bias"
            f"{self._parameters()}) {{\n"
            f"for (long i = 0; i < {full}; i++) {{\n"
            f"{self._tile(tile.rows, tile.columns, columns, part)}\n{' '.join(moves)}\n}}\n"
        )
        if rest:
            text += f"{{\n{self._tile(rest, tile.columns, columns, part)}\n}}\n"
        return name, text + "}\n"

    def _walking(self) -> list[str]:
        return [*(["o"] if self.target.stored else []), *self.epilogue.operands]

    def _parameters(self) -> str:
        text = ", float *o" if self.target.stored else ""
        text += self.epilogue.parameters
        return text + "".join(f", uint8_t *b{k}, const float *l{k}" for k in range(len(self.signs)))

    def _tile(self, rows: int, width: int, columns: int, part: int) -> str:
        runs, step = self.runs, self.strides[1] * self.image.pitch
        lines = [f"vi c{m}_{j} = {{0}};" for m in range(rows) for j in range(width)]
        lines += [
            "const uint32_t *b = weights;",
            f"for (long y = 0; y < {self.kernel[0]}; y++)",
            f"for (long x = 0; x < {runs.count}; x++) {{",
            f"const uint8_t *p = a + y * {self.down} + x * {runs.step};",
        ]
        whole = self._word(rows, width, step, "")
        if runs.bytes >= WORD:
            lines += [
                "#pragma GCC unroll 1",
                f"for (long n = 0; n < {runs.bytes // WORD}; n++) {{",
                f"{whole} p += {WORD}; HIDE(p);",
                "}",
            ]
        if runs.rest:
            mask = (1 << 8 * runs.rest) - 1
            lines.append(
                f"{{ {self._word(rows, width, step, '' if self.ternary else str(mask))} }}"
            )
        lines.append("}")
        for m in range(rows):
            lines.append(f"{{ const int32_t *z = start + column[{m}] * {columns * self.isa.lanes};")
            lines += [self._end(m, j, part if j == width - 1 else 0) for j in range(width)]
            lines.append("}")
        return "\n".join(lines)

    def _word(self, rows: int, width: int, step: int, mask: str) -> str:
        """One word of each row with one line of the panel."""
        planes = 2 if self.ternary else 1
        loads = " ".join(
            f"const vi {'wk'[k]}{j} = LDI((const int32_t *)b + {k * width + j} * VL);"
            for k in range(planes)
            for j in range(width)
        )
        kept = " & k{j}" if self.ternary else f" & {mask}" if mask else ""
        sums = " ".join(
            f"{{ const int32_t v = NXW(p + {m * step}); "
            + " ".join(f"c{m}_{j} += POPCOUNT((w{j} ^ v){kept.format(j=j)});" for j in range(width))
            + " }"
            for m in range(rows)
        )
        return f"{loads} {sums} b += {planes * width} * VL;"

    def _end(self, m: int, j: int, part: int) -> str:
        """A sum to its place: scaled, changed, stored, and what signs it has."""
        target = self.target
        at = f"{m * target.step} + {j * target.column}"
        lines = self.epilogue.lines.replace("@AT", at).replace("@COLUMN", str(j))
        store = f"ST(o + {at}, v);" if target.stored else ""
        if part:
            store = f"memcpy(o + {at}, &v, {4 * part});"
        signs = "".join(
            f" NXS(b{k} + {m * s.image.pitch + j * self.isa.lanes // 8}, v, LD(l{k} + {j} * VL));"
            for k, s in enumerate(self.signs)
        )
        return (
            f"{{ vf v = LD(scale + {j} * VL) * "
            f"__builtin_convertvector(LDI(z + {j} * VL) - 2 * c{m}_{j}, vf); KEEP(v); "
            f"v += LD(bias + {j} * VL); KEEP(v); {lines}{store}{signs} }}"
        )
