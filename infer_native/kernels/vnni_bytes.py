"""Bytes one by one, on AVX-512 VBMI: tables, sums and products of two tensors, on any layout."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from infer_native.cwriter import literal, loop, nest
from infer_native.kernels import Code, find_kernel
from infer_native.kernels.vnni_ops import INLINE, LANES

if TYPE_CHECKING:
    from infer_native.integer import Product, Sum
    from infer_native.program import Layer


def table(layer: Layer) -> Code:
    """Sixty-four bytes at a time: two tables of 128 bytes, the top bit says which."""
    size = layer.output().size
    whole = size - size % 64
    loads = "\n".join(f"const __m512i v{i} = QLD(t0 + {64 * i});" for i in range(4))
    line = (
        "const __m512i v = QLD(x0 + i);\n"
        "const __m512i low = _mm512_permutex2var_epi8(v0, v, v1);\n"
        "const __m512i high = _mm512_permutex2var_epi8(v2, v, v3);\n"
        "_mm512_storeu_si512((void *)(y0 + i), "
        "_mm512_mask_blend_epi8(_mm512_movepi8_mask(v), low, high));"
    )
    body = f"{loads}\nfor (long i = 0; i < {whole}; i += 64) {{\n{line}\n}}\n" if whole else ""
    t = layer.output().ctype
    rest = loop("i", size, f"y0[i] = ({t})t0[(uint8_t)x0[i]];", whole) if size % 64 else ""
    return Code(body + rest, [layer.attrs["table"]])


def add(layer: Layer) -> Code:
    """As the generic kernel, sixteen at a time."""
    how: Sum = layer.attrs["sum"]
    a, b, c = (f"_mm512_set1_ps({literal(v, 'float')})" for v in
               (how.ratio_a, how.ratio_b, how.shift))  # fmt: skip
    inner = f"_mm512_fmadd_ps(q_load(x1 + i), {b}, {c})"
    return _sixteen(layer, f"_mm512_fmadd_ps(q_load(x0 + i), {a}, {inner})")


def multiply(layer: Layer) -> Code:
    """Of two tensors of one shape, or of an image and one number for each of its channels."""
    how: Product = layer.attrs["product"]
    x, other = layer.input(0), layer.input(1)
    if x.shape == other.shape:
        return _sixteen(layer, _product(how, "q_load(x0 + i)", "q_load(x1 + i)"))
    channels, pixels = prod(x.shape[:2]), prod(x.shape[2:])
    if x.block:
        head = f"const __m512 b = q_load(x1 + c * {LANES});\n"
    elif pixels % LANES:
        return _generic(layer)
    else:
        head = "const __m512 b = _mm512_set1_ps((float)x1[c]);\n"
    at = f"c * {pixels} + i"
    line = f"q_bytes(y0 + {at}, {_product(how, f'q_load(x0 + {at})', 'b')});"
    body = f"{head}for (long i = 0; i < {pixels}; i += {LANES}) {{ {line} }}"
    return Code(nest(("c",), (channels,), body))


def _product(how: Product, a: str, b: str) -> str:
    """Differences and their product are exact in float."""
    zeros = (f"_mm512_set1_ps({how.zero_a}.0f)", f"_mm512_set1_ps({how.zero_b}.0f)")
    both = f"_mm512_mul_ps(_mm512_sub_ps({a}, {zeros[0]}), _mm512_sub_ps({b}, {zeros[1]}))"
    scale = f"_mm512_set1_ps({literal(how.scale, 'float')})"
    return f"_mm512_fmadd_ps({both}, {scale}, _mm512_set1_ps({how.zero_out}.0f))"


def _sixteen(layer: Layer, value: str) -> Code:
    """`value` for sixteen bytes from i on; the last ones by the generic kernel's line."""
    size = layer.output().size
    whole = size - size % LANES
    code = _generic(layer)
    body = f"for (long i = 0; i < {whole}; i += {LANES}) {{ q_bytes(y0 + i, {value}); }}\n"
    if whole != size:
        first = "for (long i = 0; i <"
        assert code.body.startswith(first)
        body += code.body.replace(first, f"for (long i = {whole}; i <", 1)
    return Code(body)


def _generic(layer: Layer) -> Code:
    kernel = find_kernel(layer.op)
    assert kernel is not None
    return kernel(layer)


def helpers() -> dict[str, str]:
    """Functions in C by name."""
    return {
        "q_bytes": (
            f"{INLINE} void q_bytes(uint8_t *o, __m512 v) {{\n"
            "  const __m512i q = _mm512_max_epi32(_mm512_cvtps_epi32(v), "
            "_mm512_setzero_si512());\n"
            "  _mm_storeu_si128((__m128i *)(void *)o, _mm512_cvtusepi32_epi8(q));\n}"
        )
    }
