"""Products of 8-bit integers as a given processor computes them.

x86 before VNNI multiplies unsigned by signed bytes with `vpmaddubsw` (Intel Software Developer's
Manual, volume 2): two neighbouring products are added with saturation to 16 bits. With weights of
the full 8 bits, 255 * 127 * 2 = 64770 does not fit into 32767, and the result is silently wrong.
Only unsigned activations with signed weights are concerned, and not depthwise convolutions, which
engines compute in wider types. Neighbours are neighbours in memory: of a matrix along the summed
axis, of a convolution along the channels of one tap after the other (channels last).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.arrays import beside_axis
from infer_runtime.errors import UsageError
from infer_runtime.evaluate import attribute_values, bind
from infer_runtime.ops import quantized
from infer_runtime.ops.window import window

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from infer_runtime.arrays import Array

    Compute = Callable[..., Any]

TARGETS = ("avx2",)
_LOW, _HIGH = -(1 << 15), (1 << 15) - 1
_GEOMETRY = ("auto_pad", "dilations", "pads", "strides")


def binder(target: str) -> Callable[[ir.Node, int], Compute]:
    """How to bind nodes for a processor; everything but integer products stays exact.

    Raises:
        UsageError: an unknown processor.

    """
    check_target(target)
    return _bind


def check_target(target: str | None) -> None:
    """UsageError for an unknown processor; None is none."""
    if target is not None and target not in TARGETS:
        raise UsageError(f"target_cpu {target!r}: expected one of {', '.join(TARGETS)}")


def _bind(node: ir.Node, opset: int) -> Compute:
    exact = bind(node, opset)
    if node.domain not in ("", "ai.onnx"):
        return exact
    if node.op_type in _INTEGER:
        return _INTEGER[node.op_type](exact, attribute_values(node))
    if node.op_type in {"Conv", "MatMul", "Gemm"}:
        return _between_quantizers(node, exact)
    return exact


def lost_by_saturation(a: Array, b: Array) -> Array:
    """What saturation changes in the product of a uint8 [..., M, K] and b int8 [..., K, N].

    The sum over all pairs (2p, 2p + 1) of the summed axis of the saturated sum of two products
    less the true one, as int64.
    """
    if a.ndim > 2 or b.ndim > 2:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        left = np.broadcast_to(a, (*lead, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
        right = np.broadcast_to(b, (*lead, *b.shape[-2:])).reshape(-1, *b.shape[-2:])
        each = [lost_by_saturation(x, y) for x, y in zip(left, right, strict=True)]
        return np.stack(each).reshape(*lead, a.shape[-2], b.shape[-1])
    if a.shape[1] % 2:
        a, b = np.pad(a, [(0, 0), (0, 1)]), np.pad(b, [(0, 1), (0, 0)])
    a, b = a.astype(np.int64), b.astype(np.int64)
    lost = np.zeros((a.shape[0], b.shape[1]), np.int64)
    for pair, columns in _at_risk(b):
        first, second = 2 * pair, 2 * pair + 1
        sums = a[:, first, None] * b[first, columns] + a[:, second, None] * b[second, columns]
        lost[:, columns] += np.clip(sums, _LOW, _HIGH) - sums
    return lost


def _at_risk(b: Array) -> list[tuple[int, Array]]:
    """Pairs of rows of b, and the columns in which bytes can exceed 16 bits."""
    even, odd = b[0::2], b[1::2]
    most = 255 * (np.maximum(even, 0) + np.maximum(odd, 0))
    least = 255 * (np.minimum(even, 0) + np.minimum(odd, 0))
    risky = (most > _HIGH) | (least < _LOW)
    return [(int(p), np.flatnonzero(risky[p])) for p in np.flatnonzero(risky.any(axis=1))]


def _lost_by_conv(x: Array, w: Array, zero: Any, attributes: dict[str, Any]) -> Array:
    """The same for x uint8 [N, C, ...] and w int8 [M, C/group, ...], as [N, M, ...]."""
    group = attributes.get("group", 1)
    m, c = w.shape[:2]
    geometry = {name: attributes[name] for name in _GEOMETRY if name in attributes}
    where = window(x.shape[2:], w.shape[2:], **geometry)
    shape = (x.shape[0], m, *where.out)
    if group > 1 and c == 1 and m == group:
        return np.zeros(shape, np.int64)
    # [N, taps, C, out] -> for each group [N * out, taps * C/group], channels fastest.
    taps = np.stack(list(where.taps(where.pad(x, zero))), axis=1)
    taps = taps.reshape(*taps.shape[:2], group, c, -1)
    lost = np.empty((group, x.shape[0] * math.prod(where.out), m // group), np.int64)
    for g in range(group):
        rows = np.moveaxis(taps[:, :, g], -1, 1).reshape(lost.shape[1], -1)
        part = w[g * (m // group) : (g + 1) * (m // group)].reshape(m // group, c, -1)
        lost[g] = lost_by_saturation(rows, part.transpose(2, 1, 0).reshape(-1, m // group))
    by_place = lost.reshape(group, x.shape[0], -1, m // group).transpose(1, 0, 3, 2)
    return by_place.reshape(shape)


def _saturates(a: Array, b: Array) -> bool:
    return a.dtype == np.uint8 and b.dtype == np.int8


def _matmul_integer(exact: Compute, _: dict[str, Any]) -> Compute:
    def compute(a: Array, b: Array, *zeros: Array | None) -> Any:
        y = exact(a, b, *zeros)
        return y + lost_by_saturation(a, b).astype(np.int32) if _saturates(a, b) else y

    return compute


def _conv_integer(exact: Compute, attributes: dict[str, Any]) -> Compute:
    def compute(x: Array, w: Array, zero: Array | None = None, *rest: Array | None) -> Any:
        y = exact(x, w, zero, *rest)
        if not _saturates(x, w):
            return y
        return y + _lost_by_conv(x, w, _scalar(zero), attributes).astype(np.int32)

    return compute


def _qlinear_conv(exact: Compute, attributes: dict[str, Any]) -> Compute:
    def compute(x: Array, x_scale: Array, x_zero: Array, w: Array, *rest: Any) -> Any:
        if not _saturates(x, w):
            return exact(x, x_scale, x_zero, w, *rest)
        w_scale, w_zero, y_scale, y_zero, *bias = rest
        total = quantized.ConvInteger(x, w, x_zero, w_zero, **attributes).astype(np.float64)
        total += _lost_by_conv(x, w, _scalar(x_zero), attributes)
        if bias and bias[0] is not None:
            total += beside_axis(bias[0], 1, total.ndim)
        scale = x_scale.astype(np.float64) * w_scale / y_scale
        return quantized.requantized(total, quantized.aligned(scale, total, 1), y_zero)

    return compute


def _qlinear_matmul(exact: Compute, _: dict[str, Any]) -> Compute:
    def compute(a: Array, a_scale: Array, a_zero: Array, b: Array, *rest: Array) -> Any:
        if not _saturates(a, b):
            return exact(a, a_scale, a_zero, b, *rest)
        b_scale, b_zero, y_scale, y_zero = rest
        total = quantized.MatMulInteger(a, b, a_zero, b_zero) + lost_by_saturation(a, b)
        scale = quantized.product_scale(a_scale, b_scale, total) / y_scale
        return quantized.requantized(total.astype(np.float64), scale, y_zero)

    return compute


_INTEGER: dict[str, Callable[[Compute, dict[str, Any]], Compute]] = {
    "ConvInteger": _conv_integer,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
}


def _between_quantizers(node: ir.Node, exact: Compute) -> Compute:
    """A float operator between quantised values, which engines run on the bytes themselves."""
    first, second = (_quantized_source(node, i) for i in (0, 1))
    if first is None or second is None:
        return exact
    if not (first[1].dtype == np.uint8 and second[1].dtype == np.int8):
        return exact
    attributes = attribute_values(node)

    def compute(a: Array, b: Array, *rest: Any) -> Any:
        y = exact(a, b, *rest)
        if node_op == "Conv":
            bytes_a, bytes_b = _bytes(a, *first, 1), _bytes(b, *second, 0)
            lost = _lost_by_conv(bytes_a, bytes_b, _scalar(first[1]), attributes)
            scale = beside_axis(np.atleast_1d(first[0] * second[0]), 1, y.ndim)
        else:
            bytes_a, bytes_b = _bytes(a, *first, -1), _bytes(b, *second, _last_axis(attributes))
            lost = lost_by_saturation(
                bytes_a.T if attributes.get("transA") else bytes_a,
                bytes_b.T if attributes.get("transB") else bytes_b,
            )
            scale = first[0] * second[0] * np.float32(attributes.get("alpha", 1.0))
        return y + (lost * scale).astype(y.dtype)

    node_op = node.op_type
    return compute


def _last_axis(attributes: dict[str, Any]) -> int:
    return 0 if attributes.get("transB") else -1


def _quantized_source(node: ir.Node, index: int) -> tuple[Array, Array] | None:
    """Scale and zero point of a DequantizeLinear before an input, when they are constant."""
    value = node.inputs[index]
    source = None if value is None else value.producer()
    if source is None or source.op_type != "DequantizeLinear" or source.inputs[0] is None:
        return None
    scale = _constant(source, 1)
    # Per axis along the outputs only; anything else is not run on bytes.
    if scale is None or scale.ndim > 1:
        return None
    if len(source.inputs) > 2 and source.inputs[2] is not None:
        zero = _constant(source, 2)
        return None if zero is None else (scale, zero)
    dtype = source.inputs[0].dtype
    return None if dtype is None else (scale, np.zeros(scale.shape, dtype.numpy()))


def _constant(node: ir.Node, index: int) -> Array | None:
    value = node.inputs[index]
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _bytes(x: Array, scale: Array, zero: Array, axis: int) -> Array:
    """The quantised values that x was dequantised from: the division is exact after rounding."""
    if scale.size > 1:
        scale, zero = (beside_axis(p, axis % x.ndim, x.ndim) for p in (scale, zero))
    return (np.rint(x / scale) + zero.astype(np.float32)).astype(zero.dtype)


def _scalar(zero: Array | None) -> Any:
    return 0 if zero is None else zero.reshape(-1)[0]
