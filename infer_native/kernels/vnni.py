"""Dense integer layers on AVX-512 VNNI: uint8 activations in [N, C / 16, H, W, 16]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal, loop
from infer_native.kernels import Code
from infer_native.kernels.gemm import choose, measured, panels_of
from infer_native.kernels.vnni_depthwise import depthwise
from infer_native.kernels.vnni_ops import (
    GROUP,
    INLINE,
    LANES,
    REGISTERS,
    added,
    bordered,
    ending,
    factors,
    label,
    passed,
    stored,
    vectors,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.integer import Linear, Mean
    from infer_native.kernels.gemm import Panel, Tile
    from infer_native.program import Array, Layer
    from infer_runtime.ops.window import Window


def conv(layer: Layer, where: Window, group: int) -> Code:
    """Dense or depthwise, of a blocked uint8 input, or of a plain one with up to four channels.

    With the attribute `sum` the second input is added behind the rounding.
    """
    linear: Linear = layer.attrs["linear"]
    if group > 1:
        return depthwise(layer, where, linear)
    return _dense(layer, where, linear)


def _dense(layer: Layer, where: Window, linear: Linear) -> Code:
    x, y = layer.input(0), layer.output()
    samples, (_, columns, rows, out, _) = x.shape[0], y.shape
    plain = not x.block
    weights = _lines(linear.weights) if plain and where.dilations[1] == 1 else linear.weights
    _, inputs, kh, kw = weights.shape
    pixel = x.shape[1] if plain else LANES
    height, width = x.shape[2:4]
    padded = plain or any(where.begins) or any(where.ends)
    line = width + where.begins[1] + where.ends[1] if padded else width
    lines = height + where.begins[0] + where.ends[0] if padded else height
    whole = where.kernel == (1, 1) and where.strides == (1, 1) and not padded
    run = rows * out if whole else out
    panels = panels_of(choose(run, columns, REGISTERS, False, measured(layer)))
    constants, zero = added(linear, layer.attrs, columns)
    tables = [pack(weights, panels), *vectors(linear, columns), *constants]
    helpers: dict[str, str] = {}
    calls, at = [], 0
    steps = -(-inputs // GROUP)
    for panel in panels:
        name, text = _product(panel.tile, run, where.strides[1] * pixel, layer.attrs)
        helpers[name] = text
        first = panel.first * LANES
        place = f"n * {y.size // samples} + {panel.first * rows * out * LANES} + r * {out * LANES}"
        other = f", x1 + {place}" if "sum" in layer.attrs else ""
        other += ", t3" if constants else ""
        other += f", t4 + {2 * first}" if len(constants) > 1 else ""
        calls.append(
            f"{name}(in + r * {where.strides[0] * line * pixel}, t0 + {at}, t1 + {first}, "
            f"t2 + {first}, y0 + {place}{other}, {run // panel.tile.rows}, {steps}, "
            f"{LANES if plain else lines * line * LANES}, {rows * out * LANES}, {kh}, {kw}, "
            f"{where.dilations[0] * line * pixel}, {where.dilations[1] * pixel}, "
            f"{zero});"
        )
        at += panel.tile.columns * LANES * GROUP * steps * kh * kw
    body = "\n".join(loop("r", 1 if whole else rows, c) for c in calls)
    source, scratch = bordered(layer, where, linear.zero_in, lines, line, padded=padded)
    return Code(loop("n", samples, f"{source}{body}"), tables, scratch, helpers)


def _lines(weights: Array) -> Array:
    """The taps of a line as inputs: side by side as the pixels that they meet."""
    outputs, inputs, kh, kw = weights.shape
    return weights.transpose(0, 3, 1, 2).reshape(outputs, kw * inputs, kh, 1)


def pack(weights: Array, panels: Sequence[Panel]) -> Array:
    """[outputs, inputs, kh, kw] panel by panel as [taps, inputs / 4, outputs, 4]."""
    outputs, inputs, kh, kw = weights.shape
    steps = -(-inputs // GROUP)
    total = sum(p.tile.columns for p in panels) * LANES
    padded = np.zeros((total, kh * kw, steps * GROUP), np.int8)
    padded[:outputs, :, :inputs] = weights.transpose(0, 2, 3, 1).reshape(outputs, kh * kw, inputs)
    split = padded.reshape(total, kh * kw, steps, GROUP).transpose(1, 2, 0, 3)
    parts = []
    for panel in panels:
        first, end = panel.first * LANES, (panel.first + panel.tile.columns) * LANES
        parts.append(np.ascontiguousarray(split[:, :, first:end]).reshape(-1))
    return np.concatenate(parts)


def _product(tile: Tile, run: int, step: int, attrs: dict[str, object]) -> tuple[str, str]:
    """Like `gemm.product`, on integers; all pixels of the output lie one after the other."""
    end = ending(attrs)
    rest = run % tile.rows
    name = f"q_{tile.rows}x{tile.columns}r{rest}_s{step}_{label(attrs)}"
    other, given = passed(attrs)
    head = (
        f"(const uint8_t *a, const int8_t *b, const int32_t *bias, const float *scale, uint8_t *o"
        f"{other}, "
    )
    strides = "long steps, long aps, long ops, long kh, long kw, long rs, long ks, int zero"
    arguments = f"a, b, bias, scale, o{given}, steps, aps, ops, kh, kw, rs, ks, zero"
    text = ""
    for height in {tile.rows, *((rest,) if rest else ())}:
        text += (
            f"{INLINE} void {name}_{height}{head}{strides}) {{\n"
            + _tile(height, tile.columns, step, end)
            + "}\n"
        )
    moves = f"a += {tile.rows * step}; o += {tile.rows * LANES};"
    moves += f" r += {tile.rows * LANES};" if "sum" in attrs else ""
    text += (
        f"static void {name}{head}long full, {strides}) {{\n"
        f"  for (long i = 0; i < full; i++) {{ {name}_{tile.rows}({arguments}); {moves} }}\n"
        + (f"  {name}_{rest}({arguments});\n" if rest else "")
        + "}\n"
    )
    return name, text


def _tile(rows: int, columns: int, step: int, end: str) -> str:
    inner = sums(rows, columns, step, "steps", "aps")
    lines = [*inner[:columns], "for (long y = 0; y < kh; y++) for (long x = 0; x < kw; x++) {"]
    lines += ["const uint8_t *p = a + y * rs + x * ks;", *inner[columns:], "}"]
    for j in range(columns):
        lines.append(f"{{ const __m512 S = _mm512_loadu_ps(scale + {j * LANES});")
        if "q_slopes" in end:
            lines.append(factors(2 * j))
        for m in range(0, rows, 4):
            lines.append(stored([f"c{i}_{j}" for i in range(m, min(m + 4, rows))], m, j, end))
        lines.append("}")
    return "\n".join(lines) + "\n"


def sums(rows: int, columns: int, step: int, steps: str, block: str) -> list[str]:
    """C for a tile of sums from their biases on, a line for each column, then the loops over p, b.

    `block` is how far p moves on after four steps.
    """
    lines = []
    for j in range(columns):
        start = f"__m512i c0_{j} = QLD(bias + {j * LANES})"
        lines.append(start + "".join(f", c{m}_{j} = c0_{j}" for m in range(1, rows)) + ";")
    return [
        *lines,
        f"for (long n = {steps} / 4; n; n--) {{",
        *(_step(rows, columns, step, u) for u in range(4)),
        f"p += {block}; b += {4 * columns * LANES * GROUP};",
        "}",
        f"for (long n = {steps} % 4; n; n--) {{",
        _step(rows, columns, step, 0),
        f"p += {GROUP}; b += {columns * LANES * GROUP};",
        "}",
    ]


def _step(rows: int, columns: int, step: int, u: int) -> str:
    width = columns * LANES * GROUP
    loads = " ".join(
        f"const __m512i b{j} = QLD(b + {u * width + j * LANES * GROUP});" for j in range(columns)
    )
    sums = " ".join(
        f"{{ const __m512i v = q_four(p + {m * step + u * GROUP}); "
        + " ".join(f"c{m}_{j} = QDOT(c{m}_{j}, v, b{j});" for j in range(columns))
        + " }"
        for m in range(rows)
    )
    return f"{{ {loads} {sums} }}"


def mean(layer: Layer) -> Code:
    """The mean of every channel, a block at a time."""
    how: Mean = layer.attrs["mean"]
    x = layer.input(0)
    samples, blocks, height, width, _ = x.shape
    count = height * width
    pixel = f"(const __m128i *)(const void *)(x0 + (c * {count} + i) * {LANES})"
    body = (
        f"__m512i sum = _mm512_set1_epi32({-count * how.zero_in});\n"
        + loop("i", count, "sum = _mm512_add_epi32(sum, _mm512_cvtepu8_epi32("
               f"_mm_loadu_si128({pixel})));")
        + f"\nconst __m512i v = q_round(sum, _mm512_set1_ps({literal(how.scale, 'float')}));\n"
        f"const __m512i z = _mm512_setzero_si512();\n"
        f"q_store(y0 + c * {LANES}, v, z, z, z, {how.zero_out}, 1);"
    )  # fmt: skip
    return Code(loop("c", samples * blocks, body))


def gemm(layer: Layer) -> Code:
    """A row at a time: the weights are read once, whatever they cost."""
    linear: Linear = layer.attrs["linear"]
    outputs, inputs = linear.weights.shape
    rows, columns = layer.input(0).size // inputs, -(-outputs // LANES)
    wide = 8
    blocks = -(-columns // wide) * wide
    padded = np.zeros((blocks * LANES, inputs), np.int8)
    padded[:outputs] = linear.weights
    split = padded.reshape(blocks // wide, wide * LANES, inputs // GROUP, GROUP)
    table = np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(-1)
    sums = " ".join(f"c{j} = QDOT(c{j}, v, QLD(b + {j * LANES * GROUP}));" for j in range(wide))
    start = ", ".join(f"c{j} = QLD(t1 + p * {wide * LANES} + {j * LANES})" for j in range(wide))
    ends = "\n".join(
        f"_mm512_storeu_ps(out + {j * LANES}, _mm512_mul_ps(_mm512_cvtepi32_ps(c{j}), "
        f"_mm512_loadu_ps(t2 + p * {wide * LANES} + {j * LANES})));"
        for j in range(wide)
    )
    body = (
        f"const int8_t *b = t0 + p * {wide * LANES * inputs};\nfloat out[{wide * LANES}];\n"
        f"__m512i {start};\n"
        + loop("k", inputs // GROUP, f"const __m512i v = q_four(x0 + i * {inputs} + k * {GROUP});\n"
               f"{sums}\nb += {wide * LANES * GROUP};")
        + f"\n{ends}\nconst long left = {outputs} - p * {wide * LANES};\n"
        f"memcpy(y0 + i * {outputs} + p * {wide * LANES}, out, "
        f"4 * (size_t)(left < {wide * LANES} ? left : {wide * LANES}));"
    )  # fmt: skip
    text = loop("i", rows, loop("p", blocks // wide, body))
    return Code(text, [table, *vectors(linear, blocks)])
