"""What integer kernels on AVX-512 VNNI have in common: small functions in C, the border, tables.

One instruction adds four products to each of sixteen sums: an operand holds four uint8 numbers in
every lane, the other four int8 weights for each of sixteen outputs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop
from infer_native.kernels.integer import lines_of

if TYPE_CHECKING:
    from infer_native.integer import Linear, Sum
    from infer_native.program import Array, Layer
    from infer_native.slopes import Slopes
    from infer_runtime.ops.window import Window

LANES = 16
GROUP = 4  # products that one instruction adds up
REGISTERS = 32
SPARE = 4 * LANES  # bytes that a load may reach beyond the last pixel

INLINE = "static inline __attribute__((always_inline))"
# gcc 12 spills the sums of a tile when the instruction comes from its intrinsic.
_DOT = f"""#if defined(__clang__)
#define QDOT(c, a, b) _mm512_dpbusd_epi32(c, a, b)
#else
{INLINE} __m512i QDOT(__m512i c, __m512i a, __m512i b) {{
  __asm__("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b));
  return c;
}}
#endif"""

# Up to four pixels of sixteen channels: the zero point is added, everything saturates.
_STORE = f"""{INLINE} void q_store(uint8_t *o, __m512i a, __m512i b, __m512i c, __m512i d,
                                    int zero, int n) {{
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i z = _mm512_set1_epi16((short)zero);
  const __m512i x = _mm512_adds_epi16(_mm512_packs_epi32(a, b), z);
  const __m512i y = _mm512_adds_epi16(_mm512_packs_epi32(c, d), z);
  const __m512i v = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(x, y));
  if (n == 4)
    _mm512_storeu_si512((void *)o, v);
  else
    _mm512_mask_storeu_epi32((void *)o, (__mmask16)((1u << (4 * n)) - 1), v);
}}"""

# A convolution, rounded, plus another tensor: which one is the first operand of the sum decides
# about its last bit.
_ADD = f"""{INLINE} __m512i q_add(__m512i c, __m512 scale, const uint8_t *r, float zero,
                                     float kv, float kr, float shift) {{
  const __m512 b = _mm512_fmadd_ps(q_load(r), _mm512_set1_ps(kr), _mm512_set1_ps(shift));
  return _mm512_cvtps_epi32(_mm512_fmadd_ps(q_byte(c, scale, zero), _mm512_set1_ps(kv), b));
}}"""
_ADD_TO = f"""{INLINE} __m512i q_add_to(__m512i c, __m512 scale, const uint8_t *r, float zero,
                                     float kv, float kr, float shift) {{
  const __m512 b =
      _mm512_fmadd_ps(q_byte(c, scale, zero), _mm512_set1_ps(kv), _mm512_set1_ps(shift));
  return _mm512_cvtps_epi32(_mm512_fmadd_ps(q_load(r), _mm512_set1_ps(kr), b));
}}"""


def helpers() -> dict[str, str]:
    """Functions in C by name, each after those that it calls."""
    return {
        "QLD": "#define QLD(p) _mm512_loadu_si512((const void *)(p))",
        "QDOT": _DOT,
        "q_four": (
            f"{INLINE} __m512i q_four(const uint8_t *p) {{\n  int32_t v;\n"
            "  memcpy(&v, p, 4);\n  return _mm512_set1_epi32(v);\n}"
        ),
        "q_round": (
            f"{INLINE} __m512i q_round(__m512i c, __m512 scale) {{\n"
            "  return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(c), scale));\n}"
        ),
        "q_byte": (
            f"{INLINE} __m512 q_byte(__m512i c, __m512 scale, float zero) {{\n"
            "  __m512 v = _mm512_roundscale_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(c), scale), 0);\n"
            "  v = _mm512_add_ps(v, _mm512_set1_ps(zero));\n"
            "  return _mm512_min_ps(_mm512_max_ps(v, _mm512_setzero_ps()), "
            "_mm512_set1_ps(255.0f));\n}"
        ),
        "q_load": (
            f"{INLINE} __m512 q_load(const uint8_t *r) {{\n"
            "  const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)r);\n"
            "  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v));\n}"
        ),
        "q_clip": (
            f"{INLINE} __m512 q_clip(__m512i c) {{\n"
            "  const __m512i v = _mm512_max_epi32(c, _mm512_setzero_si512());\n"
            "  return _mm512_cvtepi32_ps(_mm512_min_epi32(v, _mm512_set1_epi32(255)));\n}"
        ),
        "q_slopes": (
            f"{INLINE} __m512i q_slopes(__m512 c, float zero, __m512 up, __m512 down) {{\n"
            "  const __m512 d = _mm512_sub_ps(c, _mm512_set1_ps(zero));\n"
            "  const __mmask16 m = _mm512_movepi32_mask(_mm512_castps_si512(d));\n"
            "  return _mm512_cvtps_epi32(_mm512_mul_ps(d, _mm512_mask_mov_ps(up, m, down)));\n}"
        ),
        "q_add": _ADD,
        "q_add_to": _ADD_TO,
        "q_store": _STORE,
    }


def bordered(
    layer: Layer, where: Window, zero: int, lines: int, line: int, *, padded: bool
) -> tuple[str, int]:
    """The input as the kernel reads it: as it lies, or in the scratch memory with a border."""
    x = layer.input(0)
    sample = f"x0 + n * {x.size // x.shape[0]}"
    if not padded:
        return f"const uint8_t *in = {sample};\n", 0
    if not x.block:
        return _pixels(layer, where, zero, lines, line), x.shape[1] * lines * line + SPARE
    blocks, height, width = x.shape[1:4]
    top, left = where.begins
    right = line - left - width
    row = (
        f"uint8_t *d = in + (c * {lines} + r) * {line * LANES};\n"
        f"if (r < {top} || r >= {top + height}) "
        f"{{ memset(d, {zero}, {line * LANES}); continue; }}\n"
        + (f"memset(d, {zero}, {left * LANES});\n" if left else "")
        + f"memcpy(d + {left * LANES}, {sample} + (c * {height} + r - {top}) * {width * LANES}, "
        f"{width * LANES});\n"
        + (f"memset(d + {(left + width) * LANES}, {zero}, {right * LANES});" if right else "")
    )
    copy = loop("c", blocks, loop("r", lines, row))
    return f"uint8_t *in = (uint8_t *)s;\n{copy}\n", blocks * lines * line * LANES + SPARE


def _pixels(layer: Layer, where: Window, zero: int, lines: int, line: int) -> str:
    """Up to four channels side by side for each pixel, with a border of the zero point."""
    _, channels, height, width = layer.input(0).shape
    top, left = where.begins
    planes = "\n".join(
        f"const uint8_t *p{k} = x0 + (n * {channels} + {k}) * {height * width} + "
        f"(r - {top}) * {width};"
        for k in range(channels)
    )
    copy = " ".join(f"d[i * {channels} + {k}] = p{k}[i];" for k in range(channels))
    row = (
        f"uint8_t *restrict d = in + r * {line * channels};\n"
        f"memset(d, {zero}, {line * channels});\n"
        f"if (r < {top} || r >= {top + height}) continue;\nd += {left * channels};\n"
        f"{planes}\n{loop('i', width, copy)}"
    )
    return f"uint8_t *in = (uint8_t *)s;\n{loop('r', lines, row)}\n"


def vectors(linear: Linear, columns: int) -> tuple[Array, Array]:
    """Bias and scale up to whole vectors."""
    bias, scale = np.zeros(columns * LANES, np.int32), np.zeros(columns * LANES, np.float32)
    bias[: linear.bias.size], scale[: linear.scale.size] = linear.bias, linear.scale
    return bias, scale


def ending(attrs: dict[str, object]) -> str:
    """The rounding of one pixel: sums @C, scale @S, other tensor @R, constants k, lines U and D."""
    value = "q_round(@C, @S)"
    if "sum" in attrs:
        name = "q_add" if attrs["first"] else "q_add_to"
        value = f"{name}(@C, @S, @R, k[0], k[1], k[2], k[3])"
    if "slopes" not in attrs:
        return value
    value = f"q_clip({value})" if "sum" in attrs else "q_byte(@C, @S, k[0])"
    return f"q_slopes({value}, k[{4 if 'sum' in attrs else 1}], U, D)"


def label(attrs: dict[str, object]) -> str:
    """What tells apart the functions with different endings."""
    return "_".join(re.findall(r"q_\w+", ending(attrs)))


def added(
    linear: Linear, attrs: dict[str, object], columns: int
) -> tuple[list[Array], int]:  # fmt: skip
    """The constants k and the lines of each column, if there are any, and the last zero point.

    It is added when pixels are stored; sums hold it already.
    """
    sum_: Sum | None = attrs.get("sum")  # type: ignore[assignment]
    lines: Slopes | None = attrs.get("slopes")  # type: ignore[assignment]
    if sum_ is None and lines is None:
        return [], linear.zero_out
    constants, zero = [float(linear.zero_out)], 0
    if sum_ is not None:
        ratios = (sum_.ratio_a, sum_.ratio_b) if attrs["first"] else (sum_.ratio_b, sum_.ratio_a)
        constants += [*map(float, ratios), float(sum_.shift)]
    if lines is None:
        return [np.array(constants, np.float32)], zero
    found = [np.array([*constants, lines.zero], np.float32), lines_of(lines, columns, LANES)]
    return found, lines.zero_out


def passed(attrs: dict[str, object]) -> tuple[str, str]:
    """Parameters and arguments beside those of every product."""
    names = []
    if "sum" in attrs:
        names.append("const uint8_t *r")
    if "sum" in attrs or "slopes" in attrs:
        names.append("const float *k")
    if "slopes" in attrs:
        names.append("const float *h")
    return "".join(f", {n}" for n in names), "".join(f", {n.split('*')[1]}" for n in names)


def factors(first: int) -> str:
    """U and D of a column."""
    return (
        f"const __m512 U = _mm512_loadu_ps(h + {first * LANES}), "
        f"D = _mm512_loadu_ps(h + {(first + 1) * LANES});"
    )


def stored(sums: list[str], m: int, j: int, end: str) -> str:
    """Up to four pixels, rounded and stored together."""
    at = f"{j} * ops + {m * LANES}"
    values = [
        end.replace("@C", s).replace("@S", "S").replace("@R", f"r + {at} + {i * LANES}")
        for i, s in enumerate(sums)
    ]
    values += ["_mm512_setzero_si512()"] * (4 - len(values))
    return f"q_store(o + {at}, {', '.join(values)}, zero, {len(sums)});"
