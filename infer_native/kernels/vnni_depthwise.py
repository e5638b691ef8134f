"""Depthwise integer convolutions on AVX-512 VNNI, on tensors in [N, C / 16, H, W, 16]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop
from infer_native.kernels import Code
from infer_native.kernels.vnni_ops import (
    GROUP,
    LANES,
    SPARE,
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
    from infer_native.integer import Linear
    from infer_native.program import Layer
    from infer_runtime.ops.window import Window


def depthwise(layer: Layer, where: Window, linear: Linear) -> Code:
    """Four neighbouring pixels of sixteen channels become four taps for each of the channels."""
    x, y = layer.input(0), layer.output()
    samples, blocks, height, width, _ = x.shape
    _, _, rows, out, _ = y.shape
    kh, kw = where.kernel
    slots = -(-kw // GROUP)
    table = np.zeros((blocks * LANES, kh, slots * GROUP), np.int8)
    table[: linear.weights.shape[0], :, :kw] = linear.weights[:, 0]
    split = table.reshape(blocks, LANES, kh, slots, GROUP).transpose(0, 2, 3, 1, 4)
    extra = SPARE // LANES  # a load of the last tap reaches three pixels farther
    line = width + where.begins[1] + where.ends[1] + extra
    lines = height + where.begins[0] + where.ends[0]
    tile = -(-out // -(-out // 14))
    name, text = _depthwise_row(where, out, tile, line, layer.attrs)
    constants, zero = added(linear, layer.attrs, blocks)
    other = f", t4, t5 + c * {2 * LANES}" if constants else ""
    order = np.array([(i % 4) * LANES + i // 4 for i in range(64)], np.uint8)
    plane = lines * line * LANES
    call = (
        f"const long at = (n * {blocks} + c) * {rows * out * LANES} + r * {out * LANES};\n"
        f"{name}(in + c * {plane} + r * {where.strides[0] * line * LANES}, "
        f"t0 + c * {kh * slots * LANES * GROUP}, t1 + c * {LANES}, t2 + c * {LANES}, y0 + at, "
        f"QLD(t3), {zero}{other});"
    )
    body = loop("c", blocks, loop("r", rows, call))
    source, scratch = bordered(layer, where, linear.zero_in, lines, line, padded=True)
    tables = [np.ascontiguousarray(split).reshape(-1), *vectors(linear, blocks), order, *constants]
    helpers = {name: text}
    return Code(loop("n", samples, f"{source}{body}"), tables, scratch, helpers)


def _depthwise_row(
    where: Window, out: int, tile: int, line: int, attrs: dict[str, object]
) -> tuple[str, str]:  # fmt: skip
    (kh, kw), (_, stride) = where.kernel, where.strides
    name, end = f"qdw_{kh}x{kw}_s{stride}_o{out}_l{line}_{label(attrs)}", ending(attrs)
    full, rest = divmod(out, tile)
    moves = f"in += {tile * stride * LANES}; o += {tile * LANES};"
    body = _depthwise_tile(where, tile, line, end)
    tiles = [f"for (long t = 0; t < {full}; t++) {{\n{body}{moves}\n}}"]
    if rest:
        tiles.append(f"{{\n{_depthwise_tile(where, rest, line, end)}}}")
    text = (
        f"static void {name}(const uint8_t *in, const int8_t *w, const int32_t *bias, "
        "const float *scale, uint8_t *o, const __m512i order, int zero"
        f"{passed(attrs)[0]}) {{\n"
        "const __m512i start = QLD(bias);\nconst __m512 S = _mm512_loadu_ps(scale);\n"
        + (f"{factors(0)}\n" if "slopes" in attrs else "")
        + "\n".join(tiles)
        + "\n}\n"
    )
    return name, text


def _depthwise_tile(where: Window, size: int, line: int, end: str) -> str:
    """Each group of four pixels is brought into order once, for all outputs that it reaches."""
    (kh, kw), stride = where.kernel, where.strides[1]
    slots = -(-kw // GROUP)
    lines = ["__m512i " + ", ".join(f"c{n} = start" for n in range(size)) + ";"]
    uses: dict[int, list[tuple[int, int]]] = {}
    for n in range(size):
        for slot in range(slots):
            uses.setdefault(n * stride + slot * GROUP, []).append((n, slot))
    for k in range(kh):
        lines.append("{")
        at = [(k * slots + slot) * LANES * GROUP for slot in range(slots)]
        lines += [f"const __m512i w{slot} = QLD(w + {a});" for slot, a in enumerate(at)]
        for column, meets in sorted(uses.items()):
            load = f"QLD(in + {(k * where.dilations[0] * line + column) * LANES})"
            sums = " ".join(f"c{n} = QDOT(c{n}, v, w{slot});" for n, slot in meets)
            lines.append(f"{{ const __m512i v = _mm512_permutexvar_epi8(order, {load}); {sums} }}")
        lines.append("}")
    for m in range(0, size, 4):
        sums_ = [f"c{i}" for i in range(m, min(m + 4, size))]
        lines.append(stored(sums_, m, 0, end).replace("0 * ops + ", ""))
    return "\n".join(lines) + "\n"
