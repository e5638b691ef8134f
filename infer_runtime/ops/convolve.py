"""How a cross-correlation is computed: by one of several ways to make it matrix products.

All of them take x [N, C, ...] and w [M, C/group, ...] and return [N, M, ...] without bias.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from infer_runtime.ops.winograd import winograd

if TYPE_CHECKING:
    from infer_runtime.arrays import Array
    from infer_runtime.ops.window import Window

# Work buffers of about this size stay in the cache.
_BUFFER_BYTES = 1 << 20
# A depthwise row is computed in pieces of about this many outputs.
_PIECE = 14
# Kernels at least this wide are cheaper as matrices with the kernel repeated along a diagonal.
_WIDE = 16
# Depthwise kernels up to this width run faster as columns.
_NARROW = 3
# Up to so many elements, calling NumPy costs more than what it then does.
_FEW = 1 << 16
# Winograd pays from this many channels on both sides on, and this many tiles (kernels are
# transformed on every call).
_WINOGRAD_CHANNELS, _WINOGRAD_TILES = 48, 40


def convolve(x: Array, w: Array, where: Window, group: int) -> Array:
    """Cross-correlation without bias: x [N, C, ...], w [M, C/group, ...] -> [N, M, ...].

    Raises:
        ValueError: the channels of x, w and group do not fit.

    """
    if x.shape[1] != w.shape[1] * group or w.shape[0] % group:
        raise ValueError(
            f"{x.shape[1]} input channels do not fit weights {list(w.shape)} in {group} groups"
        )
    padded = where.pad(x)
    if _is_few(x, where):
        return _by_gather(padded, w, where, group)
    y = _fast(padded, w, where, group)
    return _by_columns(padded, w, where, group) if y is None else y


def _fast(x: Array, w: Array, where: Window, group: int) -> Array | None:
    """By a way that suits the shapes; None when there is none, or none that is right here.

    Some ways multiply inputs outside of a window by zero. That is exact unless such an input is
    infinite or not a number, which shows in the result.
    """
    m, c = w.shape[:2]
    if not where.kernel or not math.prod(where.out) or not x.shape[0]:
        return None
    if math.prod(where.kernel) == 1:
        return _pointwise(x, w, where, group)
    if _is_by_diagonals(w, where, group):
        # A long filter of one channel cancels most of what it adds up: double precision for it.
        wide = np.float64 if c == 1 and where.kernel[-1] >= _WIDE else x.dtype
        y = _by_diagonals(x.astype(wide, copy=False), w.astype(wide, copy=False), where, group)
        y = y.astype(x.dtype, copy=False)
    elif _is_winograd(w, where, group):
        y = winograd(x, w, where)
    elif group == 1 and m < c and {*where.strides} == {1}:
        return _by_shifts(x, w, where)
    else:
        return None
    return y if np.isfinite(np.vdot(y, y)) else None


def _is_few(x: Array, where: Window) -> bool:
    """More than one tap and at least one output, and all windows together are small."""
    taps = math.prod(where.kernel)
    return taps > 1 and 0 < taps * math.prod(where.out) * x.shape[0] * x.shape[1] <= _FEW


def _is_by_diagonals(w: Array, where: Window, group: int) -> bool:
    """Depthwise with wide rows, or so wide that copying every tap would take longer."""
    width = where.kernel[-1]
    depthwise = group > 1 and w.shape[1] == 1 and width > _NARROW
    return depthwise or (width >= _WIDE and where.out[-1] >= width)


def _is_winograd(w: Array, where: Window, group: int) -> bool:
    """Dense 3x3 without strides, on planes that are larger than a tile."""
    return (
        group == 1
        and where.kernel == (3, 3)
        and where.strides == where.dilations == (1, 1)
        and min(w.shape[:2]) >= _WINOGRAD_CHANNELS
        and math.prod(where.out) >= 16 * _WINOGRAD_TILES
    )


def _pointwise(x: Array, w: Array, where: Window, group: int) -> Array:
    m, c = w.shape[:2]
    (seen,) = where.taps(x)
    columns = seen.reshape(x.shape[0], group, c, -1)
    y: Array = np.matmul(w.reshape(group, m // group, c), columns)
    return y.reshape(x.shape[0], m, *where.out)


def _by_diagonals(x: Array, w: Array, where: Window, group: int) -> Array:
    """Each piece of an output row is a matrix product with a banded matrix.

    The columns of the matrix are the kernel row, moved on by one stride each. More products than
    a convolution needs, but they run at the speed of BLAS, also for depthwise.
    """
    m, c = w.shape[0] // group, w.shape[1]
    length = where.out[-1]
    piece = _piece(length, max(_PIECE, where.kernel[-1]))
    pieces = -(-length // piece)
    span = (piece - 1) * where.strides[-1] + (where.kernel[-1] - 1) * where.dilations[-1] + 1
    missing = (pieces - 1) * piece * where.strides[-1] + span - x.shape[-1]
    if missing > 0:
        x = np.concatenate([x, np.zeros((*x.shape[:-1], missing), x.dtype)], axis=-1)
    rows = math.prod(where.out[:-1])
    taps = math.prod(where.kernel[:-1])
    y = np.empty((x.shape[0], group, m, rows, pieces, piece), x.dtype)
    bytes_per_group = rows * pieces * c * taps * span * x.itemsize
    step = max(1, _BUFFER_BYTES // bytes_per_group)
    for n, first in product(range(x.shape[0]), range(0, group, step)):
        last = min(first + step, group)
        band = _bands(w[first * m : last * m], last - first, piece, span, where)
        seen = _pieces(x[n, first * c : last * c], last - first, pieces, piece, span, where)
        flat = seen.reshape(last - first, rows * pieces, c * taps * span)
        found = np.matmul(flat, band).reshape(last - first, rows, pieces, m, piece)
        y[n, first:last] = found.transpose(0, 3, 1, 2, 4)
    y = y.reshape(x.shape[0], group * m, *where.out[:-1], pieces * piece)
    return y if pieces * piece == length else np.ascontiguousarray(y[..., :length])


def _piece(length: int, wanted: int) -> int:
    """About the wanted length; one that divides the row, where there is one."""
    even = [n for n in range(wanted // 2, 2 * wanted + 1) if length % n == 0]
    if even:
        return min(even, key=lambda n: abs(n - wanted))
    return -(-length // max(1, round(length / wanted)))


def _bands(w: Array, group: int, piece: int, span: int, where: Window) -> Array:
    """[group, C/group * taps * span, M/group * piece]: the kernel rows along a diagonal."""
    m, c = w.shape[0] // group, w.shape[1]
    taps, width = math.prod(where.kernel[:-1]), where.kernel[-1]
    band = np.zeros((group, c, taps, span, m, piece), w.dtype)
    rows = w.reshape(group, m, c, taps, width).transpose(0, 2, 3, 4, 1)
    dilation, stride = where.dilations[-1], where.strides[-1]
    for i in range(piece):
        start = i * stride
        band[:, :, :, start : start + (width - 1) * dilation + 1 : dilation, :, i] = rows
    return band.reshape(group, c * taps * span, m * piece)


def _pieces(x: Array, group: int, pieces: int, piece: int, span: int, where: Window) -> Array:
    """[group, rows..., pieces, C/group, taps..., span]: what each piece of a row looks at."""
    c = x.shape[0] // group
    channel, *above, unit = x.strides
    steps = [s * stride for s, stride in zip(above, where.strides, strict=False)]
    taps = [s * d for s, d in zip(above, where.dilations, strict=False)]
    shape = (group, *where.out[:-1], pieces, c, *where.kernel[:-1], span)
    strides = (c * channel, *steps, piece * where.strides[-1] * unit, channel, *taps, unit)
    return np.ascontiguousarray(as_strided(x, shape, strides, writeable=False))


def _by_shifts(x: Array, w: Array, where: Window) -> Array:
    """One product over whole planes for all taps, whose results are then moved and added up.

    Vasudevan et al., Parallel Multi Channel Convolution using General Matrix Multiplication
    (2017): nothing is copied first, which pays when there are fewer outputs than inputs.
    """
    m, c = w.shape[:2]
    taps = math.prod(where.kernel)
    weights = np.moveaxis(w.reshape(m, c, taps), 2, 0).reshape(taps * m, c)
    y = np.empty((x.shape[0], m, *where.out), x.dtype)
    for n in range(x.shape[0]):
        each = np.matmul(weights, x[n].reshape(c, -1)).reshape(taps, m, *x.shape[2:])
        for number in range(taps):
            tap = where.tap(each[number], number)
            if number == 0:
                y[n] = tap
            else:
                y[n] += tap
    return y


def _by_gather(x: Array, w: Array, where: Window, group: int) -> Array:
    """im2col in one call: for the small, where each call counts."""
    batch, m = x.shape[0], w.shape[0]
    seen = x.reshape(batch, x.shape[1], -1).take(_places(where, x.shape[2:]), axis=2)
    columns = seen.reshape(batch, group, math.prod(w.shape[1:]), -1)
    y: Array = np.matmul(w.reshape(group, m // group, -1), columns)
    return y.reshape(batch, m, *where.out)


@lru_cache(maxsize=128)
def _places(where: Window, size: tuple[int, ...]) -> Array:
    """What each tap meets, for each tap in turn, as places in a plane of this size."""
    plane = np.arange(math.prod(size)).reshape(size)
    return np.concatenate([tap.reshape(-1) for tap in where.taps(plane)])


def _by_columns(x: Array, w: Array, where: Window, group: int) -> Array:
    """im2col and a matrix product, some rows of the output at a time."""
    batch, m = x.shape[0], w.shape[0]
    depth = math.prod(w.shape[1:])
    weights = w.reshape(group, m // group, depth)
    y = np.empty((batch, m, *where.out), x.dtype)
    row_bytes = depth * group * math.prod(where.out[1:]) * x.itemsize
    step = max(1, _BUFFER_BYTES // max(1, row_bytes))
    few = math.prod(where.out) < math.prod(where.kernel)
    columns = _patches if few else _columns
    for n, first in product(range(batch), range(0, where.out[0] if where.out else 1, step)):
        rows = slice(first, min(first + step, where.out[0]) if where.out else 1)
        seen = columns(x[n], where, rows, group)
        y[n, :, rows] = np.matmul(weights, seen).reshape(m, -1, *where.out[1:])
    return y


def _columns(x: Array, where: Window, rows: slice, group: int) -> Array:
    """[group, C/group * taps, rows * ...]: what each tap meets for some rows of the output."""
    taps = math.prod(where.kernel)
    columns = np.empty((x.shape[0], taps, rows.stop - rows.start, *where.out[1:]), x.dtype)
    for number, tap in enumerate(where.taps(x)):
        columns[:, number] = tap[:, rows]
    return columns.reshape(group, x.shape[0] // group * taps, -1)


def _patches(x: Array, where: Window, rows: slice, group: int) -> Array:
    """The same, copied window by window: for few windows with many taps."""
    channel, *along = x.strides
    out = (rows.stop - rows.start, *where.out[1:])
    steps = [s * stride for s, stride in zip(along, where.strides, strict=True)]
    taps = [s * d for s, d in zip(along, where.dilations, strict=True)]
    first = x[:, rows.start * where.strides[0] :]
    shape = (*out, x.shape[0], *where.kernel)
    seen = as_strided(first, shape, (*steps, channel, *taps), writeable=False)
    each = np.ascontiguousarray(seen).reshape(math.prod(out), group, -1)
    return each.transpose(1, 2, 0)
