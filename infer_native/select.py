"""The algorithm of a layer: which kernel on vectors computes it, None for the generic one."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_native.kernels import find_kernel, vnni, vnni_bytes, vnni_matmul, wide_integer, winograd
from infer_native.kernels.blocked_conv import conv
from infer_native.kernels.blocked_pool import pad, pad_bytes, pool, pool_bytes
from infer_native.kernels.dense import MIN_WORK, batched, weighted, work
from infer_native.kernels.depthwise import depthwise, fits
from infer_native.kernels.fast_recurrent import recurrent
from infer_native.kernels.gemm import Epilogue
from infer_native.kernels.geometry import window_of
from infer_native.kernels.integer import QSlopes
from infer_native.kernels.movement import pad_begins
from infer_native.kernels.plain_conv import conv_of_plain, narrow_conv, neighbours
from infer_native.kernels.recurrent import GATES
from infer_native.kernels.resize import nearest, nearest_pixels
from infer_native.kernels.spread import levels_of_layer
from infer_native.kernels.spread_winograd import COST
from infer_native.kernels.transposed_conv import apart, shared, shares, wide
from infer_native.kernels.vnni_ops import GROUP

# What other work takes beside a vector multiply-add.
IN_POINT, OUT_POINT = 18.0, 12.0  # a vector of a tile to a point, and back
MOST_POINTS = 36  # of a tile of 4 x 4
WORTH = 0.9  # the transformed weights take room: below this share of the direct sum

_BYTES = {
    "_QTable": vnni_bytes.table, "_QAdd": vnni_bytes.add, "_QMul": vnni_bytes.multiply,
    "_QSlopes": QSlopes,
}  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable

    from infer_native.isa import Isa
    from infer_native.kernels import Code
    from infer_native.program import Layer
    from infer_runtime.ops.window import Window

    Chosen = Callable[[Layer], Code]


def fast_product(layer: Layer, isa: Isa) -> Chosen | None:
    """For a float32 MatMul, or a Gemm with constant weights."""
    if layer.op not in ("MatMul", "Gemm") or layer.input(0).ctype != "float":
        return None
    if layer.op == "Gemm":
        return _fast_gemm(layer, isa)
    a, b = layer.input(0), layer.input(1)
    if len(a.shape) < 2 or len(b.shape) < 2 or work(layer) < MIN_WORK:
        return None
    weights = b.root.data
    if weights is not None and len(b.shape) == 2:
        matrix, stored = weights.reshape(b.shape), b.stored
        return lambda fast: weighted(fast, isa, matrix, None, stored)
    return lambda fast: batched(fast, isa)


def _fast_gemm(layer: Layer, isa: Isa) -> Chosen | None:
    attrs, weights, bias = layer.attrs, layer.input(1).root.data, layer.optional(2)
    if weights is None or attrs.get("transA", 0) or work(layer) < MIN_WORK:
        return None
    matrix = weights.reshape(layer.input(1).shape)
    matrix = matrix.T if attrs.get("transB", 0) else matrix
    matrix = matrix * np.float32(attrs.get("alpha", 1.0))
    start = None
    if bias is not None:
        outputs = matrix.shape[1]
        if bias.root.data is None or bias.shape not in ((outputs,), (1, outputs), (1,), ()):
            return None
        start = np.broadcast_to(bias.root.data.reshape(-1), (outputs,))
        start = start * np.float32(attrs.get("beta", 1.0))
    stored = layer.input(1).stored
    return lambda fast: weighted(fast, isa, matrix, start, stored)


def fast_recurrent(layer: Layer, isa: Isa) -> Chosen | None:
    """For LSTM, GRU and RNN of one batch size with constant weights; peepholes are left out."""
    if layer.op not in GATES or layer.input(0).ctype != "float" or layer.optional(7) is not None:
        return None
    if any(t is not None and t.root.data is None for t in layer.inputs[1:4]):
        return None
    return lambda fast: recurrent(fast, isa)


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
    if (factor := narrow(layer, isa)) > 1:
        return lambda fast: narrow_conv(fast, isa, where, filters, start, epilogue, factor)
    if group == 1 and reads_plain(layer, isa):
        return lambda fast: conv_of_plain(fast, isa, where, filters, start, epilogue)
    if group == 1 and (size := winograd_size(layer, isa, where)):
        return lambda fast: winograd.conv(fast, isa, where, filters, start, epilogue, size)
    if group == 1:
        return lambda fast: conv(fast, isa, where, filters, start, epilogue)
    if group == x.shape[1] == filters.shape[0] and fits(where):
        return lambda fast: depthwise(fast, isa, where, filters, start, epilogue)
    return None


def winograd_size(layer: Layer, isa: Isa, where: Window) -> int:
    """Outputs along a side of a tile of Winograd's algorithm; 0 where a direct sum is cheaper."""
    if where.kernel != (3, 3) or where.strides != (1, 1) or where.dilations != (1, 1):
        return 0
    if "winograd" in layer.attrs:  # as `tune` measured
        size: int = layer.attrs["winograd"]
        return size
    costs = {size: winograd_cost(layer, isa, size) for size in (0, *winograd.POINTS)}
    best = min(costs, key=lambda size: costs[size])
    return best if costs[best] < WORTH * costs[0] else 0


def winograd_cost(layer: Layer, isa: Isa, size: int) -> float:
    """Vector multiply-adds and what takes as long; size 0 is the direct sum."""
    samples, _, rows, out = layer.output().shape
    outputs, inputs = layer.input(1).shape[:2]
    columns, blocks = -(-outputs // isa.lanes), -(-inputs // isa.lanes)
    if not size:
        direct = float(samples * rows * out * 9 * inputs * columns)
        return direct / 2 if isa.bf16 else direct
    points, tiles = (size + 2) ** 2, -(-rows // size) * -(-out // size)
    spread = levels_of_layer(layer) is not None
    count = winograd.chunk(tiles, blocks * isa.lanes, columns * isa.lanes, size, spread)
    products = points * tiles * inputs * columns
    transforms = tiles * points * (IN_POINT * blocks + OUT_POINT * columns)
    if spread:
        filters = -(-tiles // count) * COST * points / MOST_POINTS * inputs * columns
        return samples * (products + filters + transforms)
    size_ = 4 * points * inputs * columns * isa.lanes
    far = -(-tiles // count) * size_ if size_ > winograd.SECOND_CACHE else 0
    return samples * (max(products, far / winograd.STREAM) + transforms)


def fast_integer(layer: Layer, isa: Isa) -> Chosen | None:
    """For an integer layer: VNNI where the processor has it, else sums of 16-bit products."""
    if not isa.lanes:
        return None
    wide = isa.name != "avx512"
    if layer.op in _BYTES:
        return find_kernel(layer.op) if wide else _BYTES[layer.op]
    if layer.op == "_QMean" and len(layer.input(0).shape) == 4:
        return None if wide else vnni.mean
    if layer.op in ("_QGemm", "_QMatMul"):
        return _fast_rows(layer, isa)
    if layer.op != "_QConv" or len(layer.input(0).shape) != 4:
        return None
    x, filters, group = layer.input(0), layer.attrs["linear"].weights, layer.attrs.get("group", 1)
    where = window_of(layer, x.shape[2:], filters.shape[2:])
    if not x.size or not layer.output().size or not _in_range(layer):
        return None
    depthwise_ = group == x.shape[1] == filters.shape[0] and group > 1
    if group != 1 and not (depthwise_ and (wide or where.dilations[1] == 1)):
        return None
    if wide:
        return lambda fast: wide_integer.conv(fast, isa, where, group)
    return lambda fast: vnni.conv(fast, where, group)


def _fast_rows(layer: Layer, isa: Isa) -> Chosen | None:
    if layer.op == "_QMatMul" and not _in_range(layer):
        return None
    if isa.name != "avx512":
        return lambda fast: wide_integer.matmul(fast, isa)
    if layer.attrs["linear"].weights.shape[1] % GROUP:
        return None
    return vnni.gemm if layer.op == "_QGemm" else vnni_matmul.matmul


def _in_range(layer: Layer) -> bool:
    """Does every rounded sum fit into int32, which the conversion does not check?"""
    linear = layer.attrs["linear"]
    rows = np.abs(linear.weights.reshape(linear.weights.shape[0], -1).astype(np.int64))
    largest = rows.sum(axis=1) * 255 + np.abs(linear.bias.astype(np.int64))
    return bool((largest * linear.scale.astype(np.float64)).max(initial=0) < 2**31)


def reads_pixels(layer: Layer, isa: Isa) -> bool:
    """Is the input of an integer convolution read as it lies: a picture of a few channels?"""
    if isa.name != "avx512":
        return False
    channels = layer.attrs["linear"].weights.shape[1]
    return layer.attrs.get("group", 1) == 1 and bool(channels <= GROUP)


def fast_transposed(layer: Layer, isa: Isa) -> tuple[Chosen, bool] | None:
    """For a ConvTranspose without overlap and with constant weights; is its result plain?"""
    if layer.op != "ConvTranspose" or len(layer.input(0).shape) != 4:
        return None
    weights, bias = layer.input(1).root.data, layer.optional(2)
    if weights is None or (bias is not None and bias.root.data is None):
        return None
    if layer.input(0).ctype != "float" or not layer.output().size or not apart(layer):
        return None
    filters = weights.reshape(layer.input(1).shape)
    start = None if bias is None else bias.root.data
    if shares(layer, isa):
        return lambda fast: shared(fast, isa, filters, start), True
    return lambda fast: wide(fast, isa, filters, start), False


def fast_pool(layer: Layer) -> Chosen | None:
    """For MaxPool and AveragePool of float32 images, without positions; MaxPool of uint8 too."""
    if layer.op not in ("MaxPool", "AveragePool") or not _is_image(layer):
        return None
    if layer.has_output(1):
        return None
    where = window_of(layer, layer.input(0).shape[2:], layer.attrs["kernel_shape"])
    if layer.input(0).ctype != "float":
        return lambda fast: pool_bytes(fast, where)
    return lambda fast: pool(fast, where)


def fast_pad(layer: Layer) -> Chosen | None:
    """For a constant Pad of float32 or uint8 images that only adds, and no channels in front."""
    if layer.op != "Pad" or not _is_image(layer):
        return None
    x, y = layer.input(0).shape, layer.output().shape
    begins = pad_begins(layer)
    ends = [m - n - b for n, m, b in zip(x, y, begins, strict=True)]
    if layer.attrs.get("mode", "constant") != "constant" or min(*begins, *ends) < 0:
        return None
    if begins[0] or ends[0] or begins[1]:
        return None
    value = layer.constant(2)
    number = 0.0 if value is None else float(value.reshape(()))
    if layer.input(0).ctype != "float":
        return lambda fast: pad_bytes(fast, begins[2:], int(number), x[1])
    return lambda fast: pad(fast, begins[2:], number, x[1])


def fast_resize(layer: Layer) -> Chosen | None:
    """For a Resize to the nearest neighbour, of any type, that leaves the channels alone."""
    x, y = layer.input(0), layer.output()
    if layer.op != "Resize" or layer.attrs.get("mode", "nearest") != "nearest":
        return None
    if len(x.shape) != 4 or x.shape[:2] != y.shape[:2] or not y.size or not x.size:
        return None
    tables = nearest(layer)
    return lambda fast: nearest_pixels(fast, tables)


def _is_image(layer: Layer) -> bool:
    x = layer.input(0)
    return (
        x.ctype in ("float", "uint8_t")
        and len(x.shape) == 4
        and x.size > 0
        and layer.output().size > 0
    )


def narrow(layer: Layer, isa: Isa) -> int:
    """Pixels to a vector in a convolution with few outputs, whose result is plain; 1 for others.

    Residuals lie in blocks and keep the usual kernel.
    """
    x, filters = layer.input(0), layer.input(1).shape
    if layer.attrs.get("group", 1) != 1 or layer.attrs.get("operands"):
        return 1
    return neighbours(window_of(layer, x.shape[2:], filters[2:]), filters[0], isa)


def reads_plain(layer: Layer, isa: Isa) -> bool:
    """Is the input of a convolution better read as it lies, as most lanes of a block were empty?

    So it is for a picture of a few channels; a pointwise filter has too little to do for it.
    """
    filters = layer.input(1).shape
    vertical = (layer.attrs.get("dilations") or [1])[0] == 1
    return 2 * filters[1] <= isa.lanes and prod(filters[2:]) > 1 and vertical
