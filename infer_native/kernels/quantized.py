"""Quantised numbers and integer products, rounding halves to even as ONNX says."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import address, broadcast_strides, loop, names, nest, strides_of
from infer_native.kernels import Code, kernel
from infer_native.kernels.conv import planes
from infer_native.kernels.geometry import window_of
from infer_native.kernels.matmul import batched
from infer_native.program import C_TYPES

if TYPE_CHECKING:
    from infer_native.program import Layer, Tensor


def _beside(layer: Layer, tensor: Tensor) -> str:
    """Address of a scale or zero point for an element of the first input; i0, i1, ... run over it.

    Per tensor, per axis, or per block of an axis.
    """
    x = layer.input(0)
    axis, block = layer.attrs.get("axis", 1), layer.attrs.get("block_size", 0)
    if tensor.size == 1:
        return "0"
    index, axis = names(len(x.shape)), axis % len(x.shape)
    if not block:
        return str(index[axis])
    at = [f"{n} / {block}" if a == axis else n for a, n in enumerate(index)]
    return address([f"({t})" for t in at], strides_of(tensor.shape))


@kernel("QuantizeLinear")
def QuantizeLinear(layer: Layer) -> Code:
    """saturate(round(x / scale) + zero point)."""
    x, y, zero = layer.input(0), layer.output(), layer.optional(2)
    if x.ctype != "float" or y.dtype.kind not in "iu" or y.dtype.itemsize > 2:
        raise layer.refused(f"quantising {x.dtype} to {y.dtype} has no kernel")
    if layer.input(1).size == 1 and (zero is None or zero.size == 1):
        point = "0" if zero is None else "(int32_t)x2[0]"
        line = f"y0[i] = nx_quantize_{y.ctype}(x0[i] / scale, zero);"
        head = f"const float scale = x1[0];\nconst int32_t zero = {point};\n"
        return Code(head + loop("i", x.size, line))
    index = names(len(x.shape))
    at = address(index, strides_of(x.shape))
    shift = "0" if zero is None else f"(int32_t)x2[{_beside(layer, zero)}]"
    value = f"x0[{at}] / x1[{_beside(layer, layer.input(1))}]"
    return Code(nest(index, x.shape, f"y0[{at}] = nx_quantize_{y.ctype}({value}, {shift});"))


@kernel("DequantizeLinear")
def DequantizeLinear(layer: Layer) -> Code:
    """(x - zero point) * scale."""
    x, y, zero = layer.input(0), layer.output(), layer.optional(2)
    if y.ctype != "float" or x.dtype.kind not in "iu":
        raise layer.refused(f"dequantising {x.dtype} to {y.dtype} has no kernel")
    if x.dtype.itemsize < 4 and layer.input(1).size == 1 and (zero is None or zero.size == 1):
        point = "0" if zero is None else "(int32_t)x2[0]"
        head = f"const float scale = x1[0];\nconst int32_t zero = {point};\n"
        line = "y0[i] = (float)((int32_t)x0[i] - zero) * scale;"
        return Code(head + loop("i", x.size, line))
    index = names(len(x.shape))
    at = address(index, strides_of(x.shape))
    value = f"(int64_t)x0[{at}]" if x.dtype.itemsize == 4 else f"(int32_t)x0[{at}]"
    if zero is not None:
        value = f"({value} - x2[{_beside(layer, zero)}])"
    line = f"y0[{at}] = (float)({value}) * x1[{_beside(layer, layer.input(1))}];"
    return Code(nest(index, x.shape, line))


@kernel("DynamicQuantizeLinear")
def DynamicQuantizeLinear(layer: Layer) -> Code:
    """uint8 by the range of the data, which always holds 0."""
    x = layer.input(0)
    outputs = [layer.has_output(i) for i in range(3)]
    body = (
        "float low = 0, high = 0;\n"
        + loop("i", x.size, "low = nx_min_float(low, x0[i]);\nhigh = nx_max_float(high, x0[i]);")
        + "\nfloat scale = (high - low) / 255.0f;\n"
        "float middle = scale == 0 ? 0 : rintf(nx_clamp_float(-low / scale, 0, 255));\n"
        "if (scale == 0) scale = 1;\nconst int32_t zero = (int32_t)middle;\n"
    )
    if outputs[0]:
        body += loop("i", x.size, "y0[i] = nx_quantize_uint8_t(x0[i] / scale, zero);")
    body += "\ny1[0] = scale;" if outputs[1] else ""
    body += "\ny2[0] = (uint8_t)zero;" if outputs[2] else "\n(void)zero;"
    return Code(body)


def _zero(layer: Layer, index: int, at: str = "0") -> str:
    tensor = layer.optional(index)
    return "" if tensor is None else f" - x{index}[{at if tensor.size > 1 else 0}]"


@kernel("ConvInteger")
def ConvInteger(layer: Layer) -> Code:
    """Exact sums in int32; padding is the zero point."""
    x, w = layer.input(0), layer.input(1)
    where = window_of(layer, x.shape[2:], w.shape[2:])
    product = f"((int32_t)w{_zero(layer, 3, 'm')}) * ((int32_t)X{_zero(layer, 2)})"
    return Code(planes(layer, where, "0", product, w.ctype))


@kernel("QLinearConv")
def QLinearConv(layer: Layer) -> Code:
    """Integer sums with the int32 bias, requantised plane by plane."""
    x, w, y, bias = layer.input(0), layer.input(3), layer.output(), layer.optional(8)
    where = window_of(layer, x.shape[2:], w.shape[2:])
    group = layer.attrs.get("group", 1)
    pixels, inner, taps = prod(where.out), prod(x.shape[2:]), prod(where.kernel)
    each, mine = w.shape[0] // group, w.shape[1]
    from infer_native.kernels.conv import rows

    product = f"((int32_t)w{_zero(layer, 5, 'm')}) * ((int32_t)X{_zero(layer, 2)})"
    add = rows(where, x.shape[2:], product).replace("{w}", w.ctype)
    source = (
        f"const {x.ctype} *xp = x0 + (n * {x.shape[1]} + m / {each} * {mine} + c) * {inner};\n"
        f"const {w.ctype} *wp = x3 + (m * {mine} + c) * {taps};\n{add}"
    )
    scale = f"x1[0] * x4[{'m' if layer.input(4).size > 1 else 0}] / x6[0]"
    start = "x8[m]" if bias is not None else "0"
    requantise = f"q[i] = nx_quantize_{y.ctype}((float)yp[i] * scale, x7[0]);"
    body = (
        "int32_t *yp = (int32_t *)s;\n"
        + loop("i", pixels, f"yp[i] = {start};")
        + "\n"
        + nest(("c",), (mine,), source)
        + f"\nconst float scale = {scale};\n"
        f"{y.ctype} *q = y0 + (n * {w.shape[0]} + m) * {pixels};\n" + loop("i", pixels, requantise)
    )
    return Code(nest(("n", "m"), (x.shape[0], w.shape[0]), body), scratch=4 * pixels)


@kernel("MatMulInteger")
def MatMulInteger(layer: Layer) -> Code:
    """Exact sums in int32; zero points per row of A, per column of B, or one for all."""
    a, b = _zero(layer, 2, "i"), _zero(layer, 3, "j")
    for index in (2, 3):
        tensor = layer.optional(index)
        if tensor is not None and len(tensor.shape) > 1 and tensor.size > 1:
            raise layer.refused("zero points of more than one axis have no kernel")
    return Code(batched(layer, f"((int32_t)A{a}) * ((int32_t)B{b})"))


@kernel("QLinearMatMul")
def QLinearMatMul(layer: Layer) -> Code:
    """Integer sums, requantised element by element."""
    a, b, y = layer.input(0), layer.input(3), layer.output()
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise layer.refused("vectors have no kernel")
    if any(layer.input(i).size > 1 for i in (1, 2)):
        raise layer.refused("scales per row have no kernel")
    m, n, k = a.shape[-2], b.shape[-1], a.shape[-1]
    index = names(len(y.shape) - 2, "b")
    lead = y.shape[:-2]
    at = [
        address(index, broadcast_strides((*t.shape[:-2], size), (*lead, size))[:-1])
        for t, size in ((a, m * k), (b, k * n), (y, m * n))
    ]
    zero_a, zero_b = _zero(layer, 2), _zero(layer, 5, "j")
    ap, bp = f"x0[{at[0]} + i * {k} + k]", f"x3[{at[1]} + k * {n} + j]"
    scale = f"x1[0] * x4[{'j' if layer.input(4).size > 1 else 0}] / x6[0]"
    body = (
        "int32_t sum = 0;\n"
        + loop("k", k, f"sum += ((int32_t){ap}{zero_a}) * ((int32_t){bp}{zero_b});")
        + f"\ny0[{at[2]} + i * {n} + j] = nx_quantize_{y.ctype}((float)sum * ({scale}), x7[0]);"
    )
    return Code(nest((*index, "i", "j"), (*lead, m, n), body))


def helpers() -> dict[str, str]:
    """Rounding into every small integer type; what is no number becomes the smallest one."""
    found = {}
    for name in ("int8", "uint8", "int16", "uint16"):
        info, t = np.iinfo(name), C_TYPES[name]
        found[f"nx_quantize_{t}"] = (
            f"static inline {t} nx_quantize_{t}(float v, int32_t zero) {{\n"
            f"  float r = rintf(v) + (float)zero;\n"
            f"  r = r > {info.min}.0f ? r : {info.min}.0f;\n"
            f"  return ({t})(int32_t)(r < {info.max}.0f ? r : {info.max}.0f);\n}}"
        )
    return found
