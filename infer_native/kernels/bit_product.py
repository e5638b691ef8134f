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
BYTES_MOST = 31  # words of which a count of bits fits into a byte


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
        runs = self.runs
        sums = [f"{m}_{j}" for m in range(rows) for j in range(width)]
        counted = self._counted(rows, width)
        wide = runs.words * runs.count * self.kernel[0] > self.most
        if wide:
            counted = self._summed(counted, sums, rows, width)
        lines = [
            _zeros("d" if wide else "c", sums),
            "const uint32_t *b = weights;",
            f"for (long y = 0; y < {self.kernel[0]}; y++)",
            f"for (long x = 0; x < {runs.count}; x++) {{",
            f"const uint8_t *p = a + y * {self.down} + x * {runs.step};",
            counted,
            "}",
        ]
        for m in range(rows):
            lines.append(f"{{ const int32_t *z = start + column[{m}] * {columns * self.isa.lanes};")
            for j in range(width):
                total = f"d{m}_{j}" if wide else f"BITSUM(c{m}_{j})"
                lines.append(self._end(m, j, part if j == width - 1 else 0, total))
            lines.append("}")
        return "\n".join(lines)

    @property
    def most(self) -> int:
        """Words that are counted before counts, which are bytes, become sums."""
        return 2**31 if self.isa.name == "avx512" else BYTES_MOST

    def _counted(self, rows: int, width: int, count: str = "") -> str:
        """The words of a run, or `count` of them and nothing behind; p is where they begin."""
        full, step = self.runs.bytes // WORD, self.strides[1] * self.image.pitch
        lines = []
        if full:
            lines += [
                "#pragma GCC unroll 1",
                f"for (long n = 0; n < {count or full}; n++) {{",
                f"{self._word(rows, width, step, '')} p += {WORD}; HIDE(p);",
                "}",
            ]
        if self.runs.rest and not count:
            lines.append(self._rest(rows, width))
        return "\n".join(lines)

    def _rest(self, rows: int, width: int) -> str:
        """The last word of a run, where other bits follow."""
        mask = "" if self.ternary else str((1 << 8 * self.runs.rest) - 1)
        return f"{{ {self._word(rows, width, self.strides[1] * self.image.pitch, mask)} }}"

    def _summed(self, counted: str, sums: list[str], rows: int, width: int) -> str:
        """Counts of a run, in parts where it is long, become sums."""
        start = _zeros("c", sums)
        end = " ".join(f"d{n} += BITSUM(c{n});" for n in sums)
        if self.runs.words <= self.most:
            return f"{start}\n{counted}\n{end}"
        part = self._counted(rows, width, f"(left < {self.most} ? left : {self.most})")
        text = (
            f"for (long left = {self.runs.bytes // WORD}; left > 0; left -= {self.most}) {{\n"
            f"{start}\n{part}\n{end}\n}}"
        )
        if self.runs.rest:
            text += f"\n{{ {start}\n{self._rest(rows, width)}\n{end} }}"
        return text

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

    def _end(self, m: int, j: int, part: int, total: str) -> str:
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
            f"__builtin_convertvector(LDI(z + {j} * VL) - 2 * {total}, vf); KEEP(v); "
            f"v += LD(bias + {j} * VL); KEEP(v); {lines}{store}{signs} }}"
        )


def _zeros(name: str, numbers: list[str]) -> str:
    return f"vi {', '.join(f'{name}{n} = {{0}}' for n in numbers)};"
