"""Vector types and the few operations that the C vector extension of gcc and clang lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infer_native.isa import Isa

_HEADERS = {"x86": "#include <immintrin.h>\n", "arm": "#include <arm_neon.h>\n"}
# Vector operations by instruction set: maximum, minimum (the second operand wins over NaN),
# one number in every lane.
_OPERATIONS = {
    "avx512": ("_mm512_max_ps", "_mm512_min_ps", "_mm512_set1_ps", "__m512"),
    "avx2": ("_mm256_max_ps", "_mm256_min_ps", "_mm256_set1_ps", "__m256"),
    "sse": ("_mm_max_ps", "_mm_min_ps", "_mm_set1_ps", "__m128"),
    "neon": ("vmaxq_f32", "vminq_f32", "vdupq_n_f32", "float32x4_t"),
}


def prelude(isa: Isa) -> str:
    """Definitions for the kernels on vectors; nothing where only scalar code is emitted."""
    if not isa.lanes:
        return ""
    max_, min_, set_, type_ = _OPERATIONS[isa.name]
    return f"""{_HEADERS[isa.family]}
#define VL {isa.lanes}
typedef float vf __attribute__((vector_size({4 * isa.lanes}), aligned(4), may_alias));
#define LD(p) (*(const vf *)(p))
#define ST(p, v) (*(vf *)(p) = (v))
#define VMAX(a, b) ((vf){max_}(({type_})(a), ({type_})(b)))
#define VMIN(a, b) ((vf){min_}(({type_})(a), ({type_})(b)))
#define HIDE(p) __asm__("" : "+r"(p))
#define VSET(x) ((vf){set_}(x))
"""
