"""bfloat16: what products read as pairs, made from float32, and tables kept in half the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.kernels import Code, kernel
from infer_native.kernels.gather import around
from infer_native.kernels.gemm import short
from infer_native.program import constant_tensor

if TYPE_CHECKING:
    from infer_native.program import Layer, Program

LARGE = 4096  # elements from which on a table is worth it

# Two numbers in a lane; rounded to the nearest, what is too small for float32 becomes zero.
PRELUDE = """#define BDOT(c, b, v) ((vf)_mm512_dpbf16_ps((__m512)(c), (__m512bh)(b), (__m512bh)(v)))
"""
# n blocks of 16 floats.
_PAIRS = """static inline void nx_pairs(const float *x, float *o, long n) {
  for (; n > 1; n -= 2, x += 32, o += 16)
    _mm512_storeu_si512(o, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16),
                                                        _mm512_loadu_ps(x)));
  if (n) _mm256_storeu_si256((void *)o, (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x)));
}"""
# n floats to (n + 1) / 2 pairs, the last one with a zero where n is odd.
_ROW = """static inline void nx_pair_row(const float *x, float *o, long n) {
  const int left = (int)(n % 16);
  nx_pairs(x, o, n / 16);
  if (left == 0) return;
  const __m512 v = _mm512_maskz_loadu_ps((__mmask16)((1 << left) - 1), x + n - left);
  const __mmask8 kept = (__mmask8)((1 << (left + 1) / 2) - 1);
  _mm256_mask_storeu_epi32(o + n / 16 * 8, kept, (__m256i)_mm512_cvtneps_pbh(v));
}"""
# n blocks of which the first `real` lanes count.
_PART = """static inline void nx_pair_part(const float *x, float *o, long n, int real) {
  for (; n; n--, x += 16, o += 8)
    _mm256_storeu_si256((void *)o, (__m256i)_mm512_cvtneps_pbh(
      _mm512_maskz_loadu_ps((__mmask16)((1 << real) - 1), x)));
}"""


def helpers() -> dict[str, str]:
    """Functions in C by name, each after those that it calls."""
    return {"nx_pairs": _PAIRS, "nx_pair_row": _ROW, "nx_pair_part": _PART}


def shrink_tables(program: Program) -> None:
    """Large float32 constants that Gather alone looks up, as bfloat16."""
    for layer in program.layers:
        table = layer.inputs[0] if layer.op == "Gather" else None
        if table is None or table.root.data is None or table.ctype != "float":
            continue
        if table.size >= LARGE:
            layer.op = "_GatherShort"
            bits = short(table.root.data.reshape(table.shape))
            layer.inputs[0] = constant_tensor(table.name, bits)


@kernel("_GatherShort")
def GatherShort(layer: Layer) -> Code:
    """Gather from a table of bfloat16."""
    x, indices = layer.input(0), layer.input(1)
    outer, size, inner = around(x.shape, layer.attrs.get("axis", 0) % len(x.shape))
    body = (
        f"for (long i = 0; i < {outer}; i++) for (long j = 0; j < {indices.size}; j++) {{\n"
        f"  const uint16_t *xp = x0 + (i * {size} + nx_index(x1[j], {size})) * {inner};\n"
        f"  float *yp = y0 + (i * {indices.size} + j) * {inner};\n"
        f"  for (long k = 0; k < {inner}; k++) {{\n"
        "    const uint32_t bits = (uint32_t)xp[k] << 16;\n"
        "    memcpy(yp + k, &bits, 4);\n  }\n}"
    )
    return Code(body)
