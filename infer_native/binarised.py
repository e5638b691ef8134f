"""Binary layers, in whichever form a file has them once its functions are unfolded.

Given:  y = Conv(Where(x >= threshold, 1, -1), W), all weights of an output channel -s, 0 or s; or
        the same with Gemm or MatMul
Result: one layer that counts bits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_native.fuse import remove_unused
from infer_native.levels import Levels, levels_of
from infer_native.program import Layer
from infer_native.signals import lifted

if TYPE_CHECKING:
    from infer_native.program import Array, Program, Tensor

IMAGE, SIGNAL = 4, 3  # axes of an input


@dataclass(frozen=True)
class Binary:
    """Weights int8 [M, C/group, kh, kw]: -1, 0, 1; `scale`, `bias` [M]; `threshold` [C]."""

    levels: Levels
    bias: Array
    threshold: Array


def fuse_binary(program: Program) -> None:
    """Rewrite every such convolution of one or two axes, and every such product of rows."""
    producers = program.producers()
    for place, layer in enumerate(program.layers):
        where = None
        if layer.op in ("Conv", "Gemm", "MatMul") and layer.input(0).view_of is None:
            where = producers.get(layer.input(0))
        if where is None or (x := _signed(where, producers)) is None:
            continue
        made = _conv(layer, *x) if layer.op == "Conv" else _rows(layer, *x)
        if made is not None:
            program.layers[place] = made
    remove_unused(program)


def _conv(layer: Layer, x: Tensor, limit: Tensor) -> Layer | None:
    if len(x.shape) not in (SIGNAL, IMAGE) or not layer.output().size:
        return None
    ones = (1,) * (len(x.shape) - 2)
    threshold = _per_channel(limit, x.shape[1], (*ones,))
    made = None if threshold is None else _binary(layer, threshold)
    if made is None:
        return None
    binary = Layer("_BConv", layer.name, [x], layer.outputs, {**layer.attrs, "binary": made})
    return lifted(binary) if len(x.shape) == SIGNAL else binary


def _rows(layer: Layer, x: Tensor, limit: Tensor) -> Layer | None:
    attrs, weights = layer.attrs, layer.input(1)
    if weights.root.data is None or len(weights.shape) != 2 or not layer.output().size:
        return None
    if attrs.get("transA", 0) or {attrs.get("alpha", 1.0), attrs.get("beta", 1.0)} != {1.0}:
        return None
    threshold = _per_channel(limit, x.shape[-1], ())
    made = None if threshold is None else _binary(layer, threshold)
    if made is None:
        return None
    return Layer("_BRows", layer.name, [x], layer.outputs, {"binary": made})


def _signed(where: Layer, producers: dict[Tensor, Layer]) -> tuple[Tensor, Tensor] | None:
    """x and the threshold behind Where(x >= threshold, 1, -1)."""
    if where.op != "Where" or [_one(t) for t in where.inputs[1:]] != [1.0, -1.0]:
        return None
    compare = producers.get(where.input(0))
    if compare is None or compare.op != "GreaterOrEqual" or where.input(0).view_of is not None:
        return None
    x, limit = compare.input(0), compare.input(1)
    if x.ctype != "float" or limit.root.data is None:
        return None
    if x.shape != where.output().shape or x.root.data is not None or not x.size:
        return None
    return x, limit


def _per_channel(limit: Tensor, channels: int, ones: tuple[int, ...]) -> Array | None:
    assert limit.root.data is not None
    shape = (channels, *ones)
    if limit.size != 1 and limit.shape not in (shape, (1, *shape)):
        return None
    values = np.broadcast_to(limit.root.data.reshape(-1), (channels,))
    return np.ascontiguousarray(values.astype(np.float32))


def _one(tensor: Tensor | None) -> float | None:
    if tensor is None or tensor.root.data is None or tensor.size != 1:
        return None
    return float(tensor.root.data.item())


def _binary(layer: Layer, threshold: Array) -> Binary | None:
    weights, bias = layer.input(1), layer.optional(2)
    if weights.root.data is None or (bias is not None and bias.root.data is None):
        return None
    values = weights.root.data.reshape(weights.shape)
    if layer.op != "Conv" and not layer.attrs.get("transB", 0):
        values = values.T
    levels = levels_of(np.ascontiguousarray(values))
    outputs = len(values)
    if levels is None or (bias is not None and bias.size not in (1, outputs)):
        return None
    start = np.zeros(1) if bias is None or bias.root.data is None else bias.root.data.reshape(-1)
    shape = (*values.shape[:2], *(1,) * (IMAGE - values.ndim), *values.shape[2:])
    return Binary(
        Levels(levels.signs.reshape(shape), levels.scale),
        np.broadcast_to(start, (outputs,)).astype(np.float32), threshold,
    )  # fmt: skip
