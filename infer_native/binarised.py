"""Binary convolutions, in whichever form a file has them once its functions are unfolded.

Given:  y = Conv(Where(x >= threshold, 1, -1), W), all weights of an output channel +s or -s
Result: one layer that counts bits
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_native.fuse import remove_unused
from infer_native.program import Layer

if TYPE_CHECKING:
    from infer_native.program import Array, Program, Tensor


@dataclass(frozen=True)
class Binary:
    """`bits` bool [M, C, kh, kw]: is a weight positive; `scale`, `bias` [M]; `threshold` [C]."""

    bits: Array
    scale: Array
    bias: Array
    threshold: Array


def fuse_binary(program: Program) -> None:
    """Rewrite every such convolution of two axes and one group."""
    producers = program.producers()
    for place, layer in enumerate(program.layers):
        if layer.op != "Conv" or layer.attrs.get("group", 1) != 1:
            continue
        where = producers.get(layer.input(0))
        found = None if where is None else _signs(where, producers)
        made = None if found is None else _binary(layer, found[1])
        if found is not None and made is not None:
            attrs = {**layer.attrs, "binary": made}
            program.layers[place] = Layer("_BConv", layer.name, [found[0]], layer.outputs, attrs)
    remove_unused(program)


def _signs(where: Layer, producers: dict[Tensor, Layer]) -> tuple[Tensor, Array] | None:
    """x and the threshold of each channel behind Where(x >= threshold, 1, -1)."""
    if where.op != "Where" or [_one(t) for t in where.inputs[1:]] != [1.0, -1.0]:
        return None
    compare = producers.get(where.input(0))
    if compare is None or compare.op != "GreaterOrEqual" or where.input(0).view_of is not None:
        return None
    x, limit = compare.input(0), compare.input(1)
    if len(x.shape) != 4 or x.ctype != "float" or limit.root.data is None:
        return None
    if x.shape != where.output().shape or x.root.data is not None or not x.size:
        return None
    channels = x.shape[1]
    if limit.size != 1 and limit.shape not in ((channels, 1, 1), (1, channels, 1, 1)):
        return None
    values = np.broadcast_to(limit.root.data.reshape(-1), (channels,))
    return x, np.ascontiguousarray(values.astype(np.float32))


def _one(tensor: Tensor | None) -> float | None:
    if tensor is None or tensor.root.data is None or tensor.size != 1:
        return None
    return float(tensor.root.data.item())


def _binary(layer: Layer, threshold: Array) -> Binary | None:
    weights, bias = layer.input(1), layer.optional(2)
    if weights.root.data is None or len(weights.shape) != 4 or not layer.output().size:
        return None
    if bias is not None and bias.root.data is None:
        return None
    values = weights.root.data.reshape(weights.shape)
    sizes = np.abs(values).reshape(len(values), -1)
    scale = sizes[:, 0]
    if not (np.isfinite(scale).all() and (sizes == scale[:, None]).all()):
        return None
    start = np.zeros(len(values)) if bias is None else bias.root.data
    return Binary(
        values > 0, scale.astype(np.float32),
        np.asarray(start, np.float32).reshape(-1), threshold,
    )  # fmt: skip
