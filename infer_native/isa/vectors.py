"""Vector types and the few operations that the C vector extension of gcc and clang lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infer_native.isa import Isa

_HEADERS = {"x86": "#include <immintrin.h>\n", "arm": "#include <arm_neon.h>\n"}
# In the source, not a flag: another processor would be another libc for zig, built first.
_TARGETS = {
    "dotprod": """#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("+dotprod")
#endif
"""
}
# Vector operations by instruction set: maximum, minimum (the second operand wins over NaN),
# one number in every lane.
_OPERATIONS = {
    "avx512": ("_mm512_max_ps", "_mm512_min_ps", "_mm512_set1_ps", "__m512"),
    "avx2": ("_mm256_max_ps", "_mm256_min_ps", "_mm256_set1_ps", "__m256"),
    "sse": ("_mm_max_ps", "_mm_min_ps", "_mm_set1_ps", "__m128"),
    "neon": ("vmaxq_f32", "vminq_f32", "vdupq_n_f32", "float32x4_t"),
    "dotprod": ("vmaxq_f32", "vminq_f32", "vdupq_n_f32", "float32x4_t"),
}

# gcc would keep the zero of an activation in a register that the sums of a tile need.
_ZERO = """#if defined(__clang__)
#define VZERO() VSET(0.0f)
#else
static inline vf VZERO(void) {{ vf z; __asm__ volatile("{0}" : "=x"(z)); return z; }}
#endif
"""
_ZEROS = {"avx2": _ZERO.format("vxorps %0, %0, %0"), "sse": _ZERO.format("xorps %0, %0")}

# For integers: weights, a few numbers in every lane, products added to 32-bit sums; float32 rounded
# to whole numbers, a product and a sum rounded once.
_PAIRS = """typedef {v} WV;
#define WLD(p) {load}((const {v} *)(const void *)(p))
#define WDOT(c, v, w) ((vi){add}(({v})(c), {madd}(v, w)))
static inline __attribute__((always_inline)) WV WSET(const int16_t *p) {{
  int32_t n;
  memcpy(&n, p, 4);
  return {set}(n);
}}
#define VROUND(v) ((vf){round}(({f})(v), 8))
"""
_FUSED = "#define VFMA(a, b, c) ((vf){fma}(({f})(a), ({f})(b), ({f})(c)))\n"
# Without the instruction libm does it.
_SPLIT = """static inline __attribute__((always_inline)) vf VFMA(vf a, vf b, vf c) {
  vf r;
  for (int i = 0; i < VL; i++) r[i] = fmaf(a[i], b[i], c[i]);
  return r;
}
"""
_ROUND_ARM = """#define VROUND(v) ((vf)vrndnq_f32((float32x4_t)(v)))
#define VFMA(a, b, c) ((vf)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
"""
_INTEGERS = {
    "avx2": _PAIRS.format(
        v="__m256i", load="_mm256_loadu_si256", add="_mm256_add_epi32", madd="_mm256_madd_epi16",
        set="_mm256_set1_epi32", round="_mm256_round_ps", f="__m256",
    ) + _FUSED.format(fma="_mm256_fmadd_ps", f="__m256"),
    "sse": _PAIRS.format(
        v="__m128i", load="_mm_loadu_si128", add="_mm_add_epi32", madd="_mm_madd_epi16",
        set="_mm_set1_epi32", round="_mm_round_ps", f="__m128",
    ) + _SPLIT,
    "neon": """typedef int16x4_t WV;
#define WLD(p) vld1_s16(p)
#define WSET(p) vdup_n_s16(*(p))
#define WDOT(c, v, w) ((vi)vmlal_s16((int32x4_t)(c), v, w))
""" + _ROUND_ARM,
    "dotprod": """typedef int8x16_t WV;
#define WLD(p) vld1q_s8(p)
#define WDOT(c, v, w) ((vi)vdotq_s32((int32x4_t)(c), w, v))
static inline __attribute__((always_inline)) WV WSET(const int8_t *p) {
  int32_t n;
  memcpy(&n, p, 4);
  return vreinterpretq_s8_s32(vdupq_n_s32(n));
}
""" + _ROUND_ARM,
}  # fmt: skip
_BYTES = """typedef uint8_t vb __attribute__((vector_size(VL), aligned(1), may_alias));
typedef int16_t vs __attribute__((vector_size(2 * VL), aligned(2), may_alias));
#define LD16(p) __builtin_convertvector(*(const vs *)(p), vi)
#define CVT(v) __builtin_convertvector(v, vf)
static inline vf q_vload(const uint8_t *p) {
  vb v;
  memcpy(&v, p, VL);
  return __builtin_convertvector(__builtin_convertvector(v, vi), vf);
}
static inline vf q_vclip(vf v) { return VMIN(VSET(255.0f), VMAX(VSET(0.0f), v)); }
static inline vf q_vbyte(vi c, vf scale, float zero) {
  return q_vclip(VROUND(CVT(c) * scale) + VSET(zero));
}
static inline void q_vpart(uint8_t *o, vf v, int n) {
  const vb b = __builtin_convertvector(__builtin_convertvector(v, vi), vb);
  memcpy(o, &b, (size_t)n);
}
static inline void q_vstore(uint8_t *o, vf v) { q_vpart(o, v, VL); }
static inline void f_part(float *o, vf v, int n) { memcpy(o, &v, 4 * (size_t)n); }
"""
_WIDE = """#ifndef LDI
typedef int32_t vi __attribute__((vector_size(4 * VL), aligned(4), may_alias));
#define LDI(p) (*(const vi *)(p))
#endif
"""
# POPCOUNT counts the bits of what sums are made of, and BITSUM makes the sums of lanes of them:
# those are bytes where nothing counts wider. By a table of sixteen counts without an instruction.
_TABLE = """static inline vi POPCOUNT(vi x) {{
  const {v} t = {broadcast}, low = {set8}(15);
  const {v} a = {shuffle}(t, {and_}(({v})x, low));
  const {v} b = {shuffle}(t, {and_}({shift}(({v})x, 4), low));
  return (vi){add}(a, b);
}}
#define BITSUM(x) ((vi){pairs}({sums}(({v})(x), {set8}(1)), {set16}(1)))
"""
_COUNTS = "_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4)"
_ARM_BITS = """#define POPCOUNT(x) ((vi)vcntq_u8((uint8x16_t)(x)))
#define BITSUM(x) ((vi)vpaddlq_u16(vpaddlq_u8((uint8x16_t)(x))))
"""
_BITS = {
    "avx512": """#define POPCOUNT(x) ((vi)_mm512_popcnt_epi32((__m512i)(x)))
#define BITSUM(x) (x)
""",
    "avx2": _TABLE.format(
        v="__m256i", broadcast=f"_mm256_broadcastsi128_si256({_COUNTS})", set8="_mm256_set1_epi8",
        shuffle="_mm256_shuffle_epi8", and_="_mm256_and_si256", shift="_mm256_srli_epi16",
        pairs="_mm256_madd_epi16", sums="_mm256_maddubs_epi16", add="_mm256_add_epi8",
        set16="_mm256_set1_epi16",
    ),
    "sse": _TABLE.format(
        v="__m128i", broadcast=_COUNTS, set8="_mm_set1_epi8", shuffle="_mm_shuffle_epi8",
        and_="_mm_and_si128", shift="_mm_srli_epi16", pairs="_mm_madd_epi16",
        sums="_mm_maddubs_epi16", add="_mm_add_epi8", set16="_mm_set1_epi16",
    ),
    "neon": _ARM_BITS,
    "dotprod": _ARM_BITS,
}  # fmt: skip
# Which numbers reach their limits, as bits: of vectors number c of a pixel, whose bits were 0.
_SIGNS = {
    "avx512": """#define NXS(o, v, t) do { \\
  const uint16_t m_ = (uint16_t)_mm512_cmp_ps_mask((__m512)(v), (__m512)(t), _CMP_GE_OQ); \\
  memcpy(o, &m_, 2); } while (0)
static inline void nx_signs(const float *x, const float *t, uint8_t *o, long c) {
  NXS(o + 2 * c, LD(x), LD(t));
}
""",
    "avx2": """#define NXS(o, v, t) (*(o) = (uint8_t)_mm256_movemask_ps( \\
  _mm256_cmp_ps((__m256)(v), (__m256)(t), _CMP_GE_OQ)))
static inline void nx_signs(const float *x, const float *t, uint8_t *o, long c) {
  NXS(o + c, LD(x), LD(t));
}
""",
    "sse": """static inline void nx_signs(const float *x, const float *t, uint8_t *o, long c) {
  const int m = _mm_movemask_ps(_mm_cmpge_ps((__m128)LD(x), (__m128)LD(t)));
  o[c / 2] |= (uint8_t)(m << (c % 2 * 4));
}
""",
    "neon": """static inline void nx_signs(const float *x, const float *t, uint8_t *o, long c) {
  const uint32x4_t each = {1, 2, 4, 8};
  const uint32x4_t m = vcgeq_f32((float32x4_t)LD(x), (float32x4_t)LD(t));
  o[c / 2] |= (uint8_t)(vaddvq_u32(vandq_u32(m, each)) << (c % 2 * 4));
}
""",
}
_UNSIGNED = "typedef uint32_t vn __attribute__((vector_size(4 * VL), aligned(4), may_alias));\n"

# Vector number g of bits; a number or its negative by bits; 0 where bits are not set.
_LEVELS = {
    16: """typedef uint16_t nxh __attribute__((aligned(1), may_alias));
#define NXB(b, g) (((const nxh *)(const void *)(b))[g])
#define NXL(m, s) ((vf)_mm512_mask_blend_ps((__mmask16)(m), (__m512)(-(s)), (__m512)(s)))
#define NXZ(m, v) ((vf)_mm512_maskz_mov_ps((__mmask16)(m), (__m512)(v)))
""",
    8: "#define NXB(b, g) ((b)[g])\n",
    4: "#define NXB(b, g) ((b)[(g) / 2] >> (g) % 2 * 4)\n",
}
_LANES = """static inline vi nx_off(int32_t m) {{
  const vi each = {{{each}}};
  return (((vi){{0}} + m) & each) == 0;
}}
#define NXL(m, s) ((vf)((vi)(s) ^ (nx_off(m) & INT32_MIN)))
#define NXZ(m, v) ((vf)((vi)(v) & ~nx_off(m)))
"""
# A word where it lies; a number that is rounded here.
_WORDS = """typedef int32_t nxw __attribute__((aligned(1), may_alias));
#define NXW(p) (*(const nxw *)(p))
#define KEEP(v) __asm__("" : "+{register}"(v))
"""
# VL x VL numbers, rows become columns: `xs` and `ys` are the steps from row to row.
_TURN = """static inline void nx_turn(const float *x, long xs, float *y, long ys) {{
{body}
}}
"""


def turning(isa: Isa) -> str:
    """The function nx_turn, by pairs of rows that swap halves, quarters and so on."""
    lanes = isa.lanes
    lines = [f"  vf a{i} = LD(x + {i} * xs);" for i in range(lanes)]
    step = lanes // 2
    while step:
        for low in range(lanes):
            if low & step:
                continue
            high = low | step
            first = [n if not n & step else lanes + (n ^ step) for n in range(lanes)]
            second = [n | step if not n & step else lanes + n for n in range(lanes)]
            lines.append(
                f"  {{ const vf u = a{low}, v = a{high}; a{low} = SHUFFLE(u, v, {_listed(first)}); "
                f"a{high} = SHUFFLE(u, v, {_listed(second)}); }}"
            )
        step //= 2
    lines += [f"  ST(y + {i} * ys, a{i});" for i in range(lanes)]
    return _SHUFFLE + _TURN.format(body="\n".join(lines))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


_SHUFFLE = """#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t vp __attribute__((vector_size(4 * VL)));
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vp){__VA_ARGS__})
#endif
"""


def closing(isa: Isa) -> str:
    """What ends the source."""
    if isa.name not in _TARGETS:
        return ""
    return "\n#if defined(__clang__)\n#pragma clang attribute pop\n#endif\n"


def integers(isa: Isa) -> str:
    """Definitions for integer kernels on 32-bit sums; nothing where there are none."""
    if isa.name not in _INTEGERS:
        return ""
    return _quiet(f"{_WIDE}{_INTEGERS[isa.name]}{_BYTES}")


def _quiet(functions: str) -> str:
    """clang reports what a model does not use."""
    return functions.replace("static inline", "static inline __attribute__((unused))")


def prelude(isa: Isa) -> str:
    """Definitions for the kernels on vectors; nothing where only scalar code is emitted."""
    if not isa.lanes:
        return ""
    max_, min_, set_, type_ = _OPERATIONS[isa.name]
    return f"""{_TARGETS.get(isa.name, "")}{_HEADERS[isa.family]}
#define VL {isa.lanes}
typedef float vf __attribute__((vector_size({4 * isa.lanes}), aligned(4), may_alias));
#define LD(p) (*(const vf *)(p))
#define ST(p, v) (*(vf *)(p) = (v))
#define VMAX(a, b) ((vf){max_}(({type_})(a), ({type_})(b)))
#define VMIN(a, b) ((vf){min_}(({type_})(a), ({type_})(b)))
#define HIDE(p) __asm__("" : "+r"(p))
#define VSET(x) ((vf){set_}(x))
{_ZEROS.get(isa.name, "#define VZERO() VSET(0.0f)" + chr(10))}"""


def levels(isa: Isa) -> str:
    """Definitions for weights that are held as bits."""
    each = ", ".join(str(1 << lane) for lane in range(isa.lanes))
    lanes = _LANES.format(each=each) if isa.lanes in (4, 8) else ""
    return f"{_WIDE}{_LEVELS[isa.lanes]}{lanes}"


def words() -> str:
    """Definitions for words that hold the bits of a lane."""
    return f"{_WIDE}{_UNSIGNED}"


def bits(isa: Isa) -> str:
    """Definitions for binary kernels."""
    words = _WORDS.format(register="v" if isa.family == "x86" else "w")
    signs = _SIGNS["neon" if isa.family == "arm" else isa.name]
    return _quiet(f"{_WIDE}{_BITS[isa.name]}{words}{signs}")
