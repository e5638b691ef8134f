"""Integer products of rows and a constant matrix on AVX-512 VNNI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal
from infer_native.kernels import Code
from infer_native.kernels.gemm import choose, measured, panels_of
from infer_native.kernels.vnni import pack, sums
from infer_native.kernels.vnni_ops import GROUP, INLINE, LANES, REGISTERS, vectors

if TYPE_CHECKING:
    from infer_native.integer import Linear, Shift
    from infer_native.kernels.gemm import Tile
    from infer_native.program import Layer


def matmul(layer: Layer) -> Code:
    """uint8 rows as they lie; with `shift` a constant row is added behind the rounding."""
    linear: Linear = layer.attrs["linear"]
    shift: Shift | None = layer.attrs.get("shift")
    outputs, inputs = linear.weights.shape
    rows, columns = layer.input(0).size // inputs, -(-outputs // LANES)
    panels = panels_of(choose(rows, columns, REGISTERS, False, measured(layer)))
    weights = linear.weights.reshape(outputs, inputs, 1, 1)
    tables = [pack(weights, panels), *vectors(linear, columns)]
    if shift is not None:
        padded = np.zeros(columns * LANES, np.float32)
        padded[:outputs] = shift.shift
        tables.append(padded)
    helpers: dict[str, str] = {}
    calls, at = [], 0
    for panel in panels:
        tile, first = panel.tile, panel.first * LANES
        left = outputs - (panel.first + tile.columns - 1) * LANES
        mask = (1 << min(left, LANES)) - 1
        name, text = _function(tile, rows, inputs, outputs, linear.zero_out, shift)
        helpers[name] = text
        row = f", t3 + {first}" if shift is not None else ""
        calls.append(
            f"{name}(x0, t0 + {at}, t1 + {first}, t2 + {first}{row}, y0 + {first}, {mask});"
        )
        at += tile.columns * LANES * inputs
    return Code("\n".join(calls), tables, 0, helpers)


def _function(
    tile: Tile, rows: int, inputs: int, outputs: int, zero: int, shift: Shift | None
) -> tuple[str, str]:
    """All rows of a panel; sizes are constants of the code."""
    full, rest = divmod(rows, tile.rows)
    name = f"qm_{tile.rows}x{tile.columns}_{rows}_{inputs}_{outputs}_z{zero}"
    end = "q_round(@C, S)"
    if shift is not None:
        ratio = literal(shift.ratio, "float")
        name += f"_a{np.float32(shift.ratio).view(np.uint32):x}"
        end = f"q_row(@C, S, {zero}.0f, {ratio}, R)"
        zero = 0
    row = ", const float *row" if shift is not None else ""
    text = (
        f"static void {name}(const uint8_t *a, const int8_t *weights, const int32_t *bias, "
        f"const float *scale{row}, uint8_t *o, int mask) {{\n"
        f"for (long i = 0; i < {full}; i++) {{\n"
        f"{_tile(tile.rows, tile, inputs, outputs, zero, end)}"
        f"a += {tile.rows * inputs}; o += {tile.rows * outputs};\n}}\n"
    )
    if rest:
        text += f"{{\n{_tile(rest, tile, inputs, outputs, zero, end)}}}\n"
    return name, text + "}\n"


def _tile(rows: int, tile: Tile, inputs: int, outputs: int, zero: int, end: str) -> str:
    lines = ["const uint8_t *p = a;", "const int8_t *b = weights;"]
    lines += sums(rows, tile.columns, inputs, f"{inputs // GROUP}", f"{4 * GROUP}")
    for j in range(tile.columns):
        mask = "mask" if j == tile.columns - 1 else "0xffff"
        lines.append(f"{{ const __m512 S = _mm512_loadu_ps(scale + {j * LANES});")
        if "R)" in end:
            lines.append(f"const __m512 R = _mm512_loadu_ps(row + {j * LANES});")
        for m in range(0, rows, 4):
            values = [end.replace("@C", f"c{i}_{j}") for i in range(m, min(m + 4, rows))]
            count = len(values)
            values += ["_mm512_setzero_si512()"] * (4 - count)
            lines.append(
                f"q_rows(o + {m * outputs + j * LANES}, {outputs}, {', '.join(values)}, {zero}, "
                f"{count}, (__mmask16){mask});"
            )
        lines.append("}")
    return "\n".join(lines) + "\n"


def helpers() -> dict[str, str]:
    """Functions in C by name."""
    return {
        "q_row": (
            f"{INLINE} __m512i q_row(__m512i c, __m512 scale, float zero, float ratio, "
            "__m512 row) {\n  return _mm512_cvtps_epi32(_mm512_fmadd_ps(q_byte(c, scale, zero), "
            "_mm512_set1_ps(ratio), row));\n}"
        ),
        "q_rows": _ROWS,
    }


# As q_store, to four rows that are `ld` apart, of which the mask says how much is stored.
_ROWS = f"""{INLINE} void q_rows(uint8_t *o, long ld, __m512i a, __m512i b, __m512i c, __m512i d,
                                  int zero, int n, __mmask16 mask) {{
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i z = _mm512_set1_epi16((short)zero);
  const __m512i x = _mm512_adds_epi16(_mm512_packs_epi32(a, b), z);
  const __m512i y = _mm512_adds_epi16(_mm512_packs_epi32(c, d), z);
  const __m512i v = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(x, y));
  _mm_mask_storeu_epi8((void *)o, mask, _mm512_castsi512_si128(v));
  if (n > 1) _mm_mask_storeu_epi8((void *)(o + ld), mask, _mm512_extracti32x4_epi32(v, 1));
  if (n > 2) _mm_mask_storeu_epi8((void *)(o + 2 * ld), mask, _mm512_extracti32x4_epi32(v, 2));
  if (n > 3) _mm_mask_storeu_epi8((void *)(o + 3 * ld), mask, _mm512_extracti32x4_epi32(v, 3));
}}"""
