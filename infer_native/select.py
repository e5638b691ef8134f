"""The algorithm of a layer: which kernel on vectors computes it, None for the generic one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.kernels.blocked_conv import conv
from infer_native.kernels.depthwise import depthwise, fits
from infer_native.kernels.gemm import Epilogue
from infer_native.kernels.geometry import window_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from infer_native.isa import Isa
    from infer_native.kernels import Code
    from infer_native.program import Layer

    Chosen = Callable[[Layer], Code]


def fast_conv(layer: Layer, isa: Isa) -> Chosen | None:
    """For a two-dimensional float32 convolution with constant weights, dense or depthwise."""
    if layer.op != "Conv" or layer.input(0).ctype != "float" or len(layer.input(0).shape) != 4:
        return None
    weights, bias = layer.input(1).root.data, layer.optional(2)
    if weights is None or (bias is not None and bias.root.data is None):
        return None
    x, y = layer.input(0), layer.output()
    if not x.size or not y.size:
        return None
    filters = weights.reshape(layer.input(1).shape)
    group = layer.attrs.get("group", 1)
    where = window_of(layer, x.shape[2:], filters.shape[2:])
    epilogue = layer.attrs.get("epilogue", Epilogue())
    start = None if bias is None else bias.root.data
    if group == 1:
        return lambda fast: conv(fast, isa, where, filters, start, epilogue)
    if group == x.shape[1] == filters.shape[0] and fits(where, x.shape[2]):
        return lambda fast: depthwise(fast, isa, where, filters, start, epilogue)
    return None
