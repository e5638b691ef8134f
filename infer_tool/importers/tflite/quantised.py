"""Quantised tensors: integers in the graph, QuantizeLinear and DequantizeLinear around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UnsupportedOpError
from infer_tool.importers.tflite.builder import array_of
from infer_tool.importers.tflite.names import DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from infer_tool.importers.tflite.builder import Builder
    from infer_tool.importers.tflite.flatbuffer import Array
    from infer_tool.importers.tflite.schema import Tensor

_ACTIVATIONS = ("INT8", "UINT8", "INT16")
_WEIGHTS = (*_ACTIVATIONS, "INT4", "UINT4", "INT2", "INT32", "INT64")
# Between which numbers an activation of the schema leaves its results.
_LIMITS = {1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
_INT32 = np.iinfo(np.int32)


def is_quantised(tensor: Tensor) -> bool:
    """Does it hold integers that stand for real numbers?"""
    return tensor.quantisation is not None and tensor.type in _WEIGHTS


def is_quantised_activation(tensor: Tensor) -> bool:
    """Is it of a type that QuantizeLinear writes?"""
    return tensor.quantisation is not None and tensor.type in _ACTIVATIONS


def same(a: Tensor, b: Tensor) -> bool:
    """Do equal integers stand for equal numbers in both?"""
    p, q = a.quantisation, b.quantisation
    if not (is_quantised_activation(a) and is_quantised_activation(b)):
        return is_quantised_activation(a) == is_quantised_activation(b)
    assert p is not None
    assert q is not None
    return a.type == b.type and all(
        np.array_equal(x, y) for x, y in ((p.scale, q.scale), (p.zero_point, q.zero_point))
    )


def activation_bounds(tensor: Tensor, activation: int) -> tuple[int, int] | None:
    """The integers that the results of a fused activation lie between; None without one."""
    found, limits = tensor.quantisation, _LIMITS.get(activation)
    if limits is None:
        return None
    assert found is not None
    info = np.iinfo(DTYPES[tensor.type].numpy())
    edges = np.array(limits) / found.scale[0] + found.zero_point[0]
    low, high = np.clip(np.rint(edges), info.min, info.max)
    return int(low), int(high)


def quantise(build: Builder, tensor: Tensor, value: ir.Value) -> ir.Value:
    """The integers that stand for a real result; any other value is returned as it is."""
    if not is_quantised_activation(tensor):
        return value
    pair, axis = _parameters(build, tensor, None)
    return build.one("QuantizeLinear", value, *pair, **axis)


def real_array(tensor: Tensor, array: Array) -> Array:
    """The real numbers of a quantised constant, as float32."""
    found = tensor.quantisation
    assert found is not None
    shape = [1] * array.ndim
    if len(found.scale) > 1:
        shape[found.axis] = -1
    scale, zero = (v.reshape(shape) for v in (found.scale, found.zero_point.astype(np.float32)))
    return ((array.astype(np.float32) - zero) * scale).astype(np.float32)


def dequantise(
    build: Builder, tensor: Tensor, value: ir.Value, perm: Sequence[int] | None = None
) -> ir.Value:
    """The real numbers of a tensor with its axes permuted."""
    array = array_of(value)
    if array is not None:
        # ONNX Runtime fails on a DequantizeLinear in a loop whose constant lies outside of it.
        with build.outside():
            return _constant(build, tensor, array, perm)
    if perm is not None:
        value = build.one("Transpose", value, perm=list(perm))
    return _real(build, tensor, value, perm) if is_quantised(tensor) else value


def _constant(build: Builder, tensor: Tensor, array: Array, perm: Sequence[int] | None) -> ir.Value:
    if tensor.type == "FLOAT16":
        array = array.astype(np.float32)  # half-precision weights compute in single precision
    if is_quantised(tensor) and tensor.type == "INT64":
        return _wide(build, tensor, array)
    turned = array.transpose(perm or range(array.ndim))
    value = build.constant(turned, name=tensor.name)
    return _real(build, tensor, value, perm) if is_quantised(tensor) else value


def _real(build: Builder, tensor: Tensor, value: ir.Value, perm: Sequence[int] | None) -> ir.Value:
    found = tensor.quantisation
    if found is not None and found.block:
        raise UnsupportedOpError(f"tensor {tensor.index}: quantisation in blocks of {found.block}")
    pair, axis = _parameters(build, tensor, perm)
    return build.one("DequantizeLinear", value, *pair, **axis)


def _parameters(
    build: Builder, tensor: Tensor, perm: Sequence[int] | None
) -> tuple[list[ir.Value], dict[str, Any]]:
    """Scale, zero point and axis of a QuantizeLinear or DequantizeLinear.

    The zero point of int32 is always 0, and left away.
    """
    found = tensor.quantisation
    assert found is not None
    single = len(found.scale) == 1
    shape = () if single else (-1,)
    pair = [build.constant(found.scale.astype(np.float32).reshape(shape))]
    if tensor.type != "INT32":
        zero = found.zero_point.astype(DTYPES[tensor.type].numpy())
        pair.append(build.constant(zero.reshape(shape)))
    axis = {} if single else {"axis": found.axis if perm is None else list(perm).index(found.axis)}
    return pair, axis


def _wide(build: Builder, tensor: Tensor, array: Array) -> ir.Value:
    """Biases of int64, beside activations of int16: int32 where they fit, else real numbers."""
    found = tensor.quantisation
    assert found is not None
    if array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
        return build.constant((array * found.scale.astype(np.float64)).astype(np.float32))
    single = len(found.scale) == 1
    scale = build.constant(found.scale.astype(np.float32).reshape(() if single else (-1,)))
    axis = {} if single else {"axis": found.axis}
    return build.one("DequantizeLinear", build.constant(array.astype(np.int32)), scale, **axis)
