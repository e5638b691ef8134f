"""Sums of -1 and 1 times -1, 0 and 1 on vectors: XOR, then counting bits.

A sum of n products is n - 2 * (places where the two differ): Rastegari et al., "XNOR-Net", 2016,
section 3.2. Every lane counts for one output channel. The bits of a pixel lie side by side in whole
bytes, those of neighbouring pixels follow: a line of a filter is one run of words, the last of which
may hold bits of a pixel too many. Padding counts as -1 first; what that adds is known for each
output place, and taken off. Products are rounded before anything is added to them: the results are
those of the reference, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop, nest
from infer_native.kernels import Code
from infer_native.kernels.bits import BITS, packed, starts
from infer_native.kernels.gemm import Epilogue, choose, pad_columns, panels_of
from infer_native.kernels.geometry import window_of
from infer_native.program import Tensor

if TYPE_CHECKING:
    from infer_native.binarised import Binary
    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Panel, Tile
    from infer_native.program import Array, Layer
    from infer_runtime.ops.window import Window

WORD = BITS // 8


@dataclass(frozen=True)
class Image:
    """Where the bits of an image lie: `lines` of `line` pixels of `pitch` bytes, with a border.

    The first pixel is number `first`; `size` bytes make a sample, a word more than are used.
    """

    lines: int
    line: int
    pitch: int
    first: int

    @property
    def size(self) -> int:
        """Bytes of a sample."""
        return -(-self.lines * self.line * self.pitch // WORD + 1) * WORD


@dataclass(frozen=True)
class Signs:
    """Bits that a layer makes of its result: where they lie, and the limit of each channel."""

    image: Image
    limits: Array


@dataclass(frozen=True)
class Runs:
    """What a filter reads of an image: `count` runs of `bytes` for each line, `step` bytes apart."""

    count: int
    step: int
    bytes: int

    @property
    def words(self) -> int:
        """Words of a run."""
        return -(-self.bytes // WORD)

    @property
    def rest(self) -> int:
        """Bytes of the last word, where it is not full."""
        return self.bytes % WORD


@dataclass(frozen=True)
class Target:
    """Where results go: steps from pixel to pixel and from column to column; lanes of the last."""

    step: int
    column: int
    part: int = 0
    stored: bool = True


def fits(layer: Layer, isa: Isa) -> bool:
    """Do groups begin with a vector and with a byte?"""
    how: Binary = layer.attrs["binary"]
    group = layer.attrs.get("group", 1)
    outputs, each = how.levels.signs.shape[:2]
    unit = max(isa.lanes, 8)
    return group == 1 or (each % unit == 0 and outputs // group % isa.lanes == 0)


def writes_signs(isa: Isa) -> bool:
    """Are the bits of a vector whole bytes?"""
    return isa.lanes >= 8  # noqa: PLR2004


def image_of(layer: Layer, isa: Isa) -> Image:
    """Of the input [N, C, H, W] of a convolution."""
    how: Binary = layer.attrs["binary"]
    _, channels, height, width = layer.input(0).shape
    where = window_of(layer, (height, width), how.levels.signs.shape[2:])
    top, left = where.begins
    line = width + left + where.ends[1]
    pitch = -(-(-(-channels // isa.lanes) * isa.lanes) // 8)
    return Image(height + top + where.ends[0], line, pitch, top * line + left)


def signs_of(layer: Layer, isa: Isa) -> Signs:
    """What a convolution reads instead of its input."""
    how: Binary = layer.attrs["binary"]
    blocks = -(-how.threshold.size // isa.lanes) * isa.lanes
    # Nothing reaches NaN: lanes beyond the last channel count as the zeros of the weights.
    limits = np.pad(
        how.threshold, (0, blocks - how.threshold.size), constant_values=np.nan
    )
    return Signs(image_of(layer, isa), limits)


def bits_tensor(name: str, samples: int, image: Image) -> Tensor:
    """The memory of the bits of all samples."""
    return Tensor(f"{name}_bits", (samples, image.size), np.dtype(np.uint8))


def sign(layer: Layer) -> Code:
    """The bits of a blocked image."""
    how: Signs = layer.attrs["signs"]
    image, (samples, blocks, height, width, lanes) = how.image, layer.input(0).shape
    at = f"({image.first} + r * {image.line} + i) * {image.pitch}"
    pixel = (
        f"nx_signs(x0 + ((n * {blocks} + c) * {height * width} + r * {width} + i) * {lanes}, "
        f"t0 + c * {lanes}, b + {at}, c);"
    )
    body = (
        f"uint8_t *b = y0 + n * {image.size};\nmemset(b, 0, {image.size});\n"
        + nest(("r", "i", "c"), (height, width, blocks), pixel)
    )  # fmt: skip
    return Code(loop("n", samples, body), [how.limits])


def conv(layer: Layer, isa: Isa) -> Code:
    """Of bits into a blocked float32 image, bits of it or both; operands of the epilogue follow."""
    how: Binary = layer.attrs["binary"]
    lanes, group = isa.lanes, layer.attrs.get("group", 1)
    (samples, _, height, width), image = layer.attrs["shape"], layer.attrs["image"]
    outputs, each, kh, kw = how.levels.signs.shape
    where = window_of(layer, (height, width), (kh, kw))
    (rows, out), columns = where.out, -(-outputs // lanes)
    runs = _runs(where, image, each, group)
    signs: list[Signs] = layer.attrs["signs"]
    target = Target(lanes, rows * out * lanes, stored=layer.has_output(0))
    code = _Product(layer, isa, where, image, runs, target, signs)
    panels = panels_of(choose(out, columns // group, code.free, embedded=False))
    sums, row_class, column_class = starts(how.levels, where, (height, width))
    total = columns * lanes
    tables = [
        code.weights(panels, group), np.pad(sums, ((0, 0), (0, total - outputs))), row_class,
        column_class, pad_columns(how.levels.scale, columns, lanes),
        pad_columns(how.bias, columns, lanes), *code.tables(columns),
    ]  # fmt: skip
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for number in range(group):
        for panel in panels:
            first = number * (columns // group) + panel.first
            calls.append(code.call(panel, first, at, number * (each // 8), columns, helpers))
            at += code.words(panel)
    clear = "".join(
        f"memset(y{k} + n * {s.image.size}, 0, {s.image.size});\n"
        for k, s in enumerate(signs, start=1)
    )
    body = f"const uint8_t *in = x0 + n * {image.size};\n{clear}" + loop(
        "r", rows, "\n".join(calls)
    )
    return Code(loop("n", samples, body), tables, 0, helpers)


def _runs(where: Window, image: Image, each: int, group: int) -> Runs:
    """Neighbouring taps of all channels are one run."""
    if group == 1 and (where.dilations[1] == 1 or where.kernel[1] == 1):
        return Runs(1, 0, where.kernel[1] * image.pitch)
    size = image.pitch if group == 1 else each // 8
    return Runs(where.kernel[1], where.dilations[1] * image.pitch, size)


def rows(layer: Layer, isa: Isa) -> Code:
    """Of plain rows into plain rows."""
    how: Binary = layer.attrs["binary"]
    lanes, (outputs, size) = isa.lanes, how.levels.signs.shape[:2]
    count, columns = layer.input(0).size // size, -(-outputs // isa.lanes)
    image = Image(1, count, -(-size // BITS) * WORD, 0)
    runs = Runs(1, 0, image.pitch)
    code = _Product(layer, isa, None, image, runs, Target(outputs, lanes, outputs % lanes), [])
    panels = panels_of(choose(count, columns, code.free, embedded=False))
    sums = np.abs(how.levels.signs.astype(np.int32)).sum(axis=(1, 2, 3), dtype=np.int32)
    tables = [
        code.weights(panels, 1), np.pad(sums, (0, columns * lanes - outputs)),
        np.zeros(1, np.int32), np.zeros(count, np.int32),
        pad_columns(how.levels.scale, columns, lanes), pad_columns(how.bias, columns, lanes),
        how.threshold,
    ]  # fmt: skip
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for panel in panels:
        calls.append(code.call(panel, panel.first, at, 0, columns, helpers))
        at += code.words(panel)
    rest = f"b[k / 8] |= (uint8_t)((x0[r * {size} + k] >= t6[k]) << (k % 8));"
    row = (
        f"uint8_t *b = (uint8_t *)s + r * {image.pitch};\n"
        + loop("c", size // lanes, f"nx_signs(x0 + r * {size} + c * VL, t6 + c * VL, b, c);")
        + "\n" + loop("k", size, rest, size // lanes * lanes)
    )  # fmt: skip
    body = (
        f"memset(s, 0, {image.size});\n{loop('r', count, row)}\n"
        f"{{\nconst uint8_t *in = (const uint8_t *)s;\nconst long n = 0, r = 0;\n(void)n;\n"
        + "\n".join(calls) + "\n}"
    )  # fmt: skip
    return Code(body, tables, image.size, helpers)


class _Product:
    """The parts of a layer that its panels share."""

    def __init__(
        self, layer: Layer, isa: Isa, where: Window | None, image: Image, runs: Runs,
        target: Target, signs: list[Signs],
    ) -> None:  # fmt: skip
        self.how: Binary = layer.attrs["binary"]
        self.isa, self.image, self.runs, self.target, self.signs = isa, image, runs, target, signs
        self.epilogue: Epilogue = layer.attrs.get("epilogue", Epilogue())
        self.channels: Array | None = layer.attrs.get("channels")
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
        """After the six of every layer: of the epilogue, of its channels, limits of the signs."""
        lanes, found = self.isa.lanes, [*self.epilogue.tables]
        if self.channels is not None:
            found.append(
                np.stack([pad_columns(row, columns, lanes) for row in self.channels])
            )
        return [*found, *(s.limits for s in self.signs)]

    def call(
        self, panel: Panel, first: int, at: int, offset: int, columns: int, helpers: dict[str, str]
    ) -> str:
        """C that computes a row of outputs from column `first` on, weights from word `at` on."""
        lanes, target = self.isa.lanes, self.target
        last = first + panel.tile.columns == columns
        name, text = self.function(panel.tile, columns, part=target.part if last else 0)
        helpers[name] = text
        place = (
            f"n * {columns * target.column} + {first * target.column} + r * {self.out * target.step}"
        )
        given = f", y0 + {place}" if target.stored else ""
        number = 6
        given += self.epilogue.arguments(place, number)
        number += len(self.epilogue.tables)
        if self.channels is not None:
            given += f", t{number} + {first * lanes}"
            number += 1
        for k, signs in enumerate(self.signs):
            image = signs.image
            given += (
                f", y{k + 1} + n * {image.size} + ({image.first} + r * {image.line}) * "
                f"{image.pitch} + {first * lanes // 8}, t{number + k} + {first * lanes}"
            )
        row = f"r * {self.strides[0] * self.image.line * self.image.pitch} + {offset}"
        return (
            f"{name}(in + {row}, t0 + {at}, t1 + t2[r] * {columns * lanes} + {first * lanes}, t3, "
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
            f"const int32_t *column, const float *scale, const float *bias{self._parameters()}) {{\n"
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
        text += ", const float *h" if self.channels is not None else ""
        return text + "".join(f", uint8_t *b{k}, const float *l{k}" for k in range(len(self.signs)))

    def _tile(self, rows: int, width: int, columns: int, part: int) -> str:
        runs, step = self.runs, self.strides[1] * self.image.pitch
        lines = [f"vi c{m}_{j} = {{0}};" for m in range(rows) for j in range(width)]
        lines += [
            "const uint32_t *b = weights;",
            f"for (long y = 0; y < {self.kernel[0]}; y++) for (long x = 0; x < {runs.count}; x++) {{",
            f"const uint8_t *p = a + y * {self.down} + x * {runs.step};",
        ]
        whole = self._word(rows, width, step, "")
        if runs.bytes >= WORD:
            lines += [
                "#pragma GCC unroll 1",
                f"for (long n = 0; n < {runs.bytes // WORD}; n++) {{ {whole} p += {WORD}; HIDE(p); }}",
            ]
        if runs.rest:
            mask = (1 << 8 * runs.rest) - 1
            lines.append(f"{{ {self._word(rows, width, step, '' if self.ternary else str(mask))} }}")
        lines.append("}")
        for m in range(rows):
            lines.append(f"{{ const int32_t *z = start + column[{m}] * {columns * self.isa.lanes};")
            lines += [self._end(m, j, columns, part if j == width - 1 else 0) for j in range(width)]
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
            + " ".join(
                f"c{m}_{j} += POPCOUNT((w{j} ^ v){kept.format(j=j)});" for j in range(width)
            )
            + " }"
            for m in range(rows)
        )
        return f"{loads} {sums} b += {planes * width} * VL;"

    def _end(self, m: int, j: int, columns: int, part: int) -> str:
        """A sum to its place: scaled, changed, stored, and what signs it has."""
        target = self.target
        at = f"{m * target.step} + {j * target.column}"
        lines = self.epilogue.lines.replace("@AT", at).replace("@COLUMN", f"{j} * VL")
        lines = lines.replace("@WIDTH", str(columns * self.isa.lanes))
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


def rounded(epilogue: Epilogue) -> Epilogue:
    """The same lines, each of whose products is rounded before it is added to anything."""
    lines = epilogue.lines.replace("const vf e", "vf e")
    parts = [part for part in lines.split("; ") if part]
    kept = [
        f"{part}; KEEP({part.split()[1]})" if part.startswith("vf e") else part for part in parts
    ]
    return replace(epilogue, key=f"k{epilogue.key}", lines="; ".join(kept) + "; ")
