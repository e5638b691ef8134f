"""3x3 convolution with fewer products: Winograd's minimal filtering F(4x4, 3x3).

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016). A tile of 6x6 inputs
yields 4x4 outputs by 36 products for each pair of channels instead of 144. The transforms of a
tile are matrix products too, with Kronecker squares of the one-dimensional matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

if TYPE_CHECKING:
    from infer_runtime.arrays import Array
    from infer_runtime.ops.window import Window

_OUT, _IN = 4, 6
_BUFFER_BYTES = 1 << 22

# Interpolation at 0, 1, -1, 2, -2 and infinity.
_INPUT = np.array([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
])  # fmt: skip
_KERNEL = np.array([
    [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
])  # fmt: skip
_OUTPUT = np.array([
    [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1],
])  # fmt: skip
_INPUT_2D, _KERNEL_2D, _OUTPUT_2D = (np.kron(m, m) for m in (_INPUT, _KERNEL, _OUTPUT))


def winograd(x: Array, w: Array, where: Window) -> Array:
    """x [N, C, H, W] (padded), w [M, C, 3, 3], stride 1 -> [N, M, H - 2, W - 2]."""
    m, c = w.shape[:2]
    height, width = where.out
    down, across = -(-height // _OUT), -(-width // _OUT)
    x = _to_whole_tiles(x, down, across)
    kernels = _KERNEL_2D.astype(x.dtype) @ w.reshape(m * c, 9).T
    kernels = kernels.reshape(_IN * _IN, m, c)
    y = np.empty((x.shape[0], m, down * _OUT, across * _OUT), x.dtype)
    step = max(1, _BUFFER_BYTES // (_IN * _IN * (c + m) * across * x.itemsize))
    for n in range(x.shape[0]):
        for first in range(0, down, step):
            last = min(first + step, down)
            tiles = _tiles(x[n], first, last, across)
            out = _products(tiles, kernels).reshape(_OUT, _OUT, m, last - first, across)
            rows = y[n, :, first * _OUT : last * _OUT]
            rows.reshape(m, last - first, _OUT, across, _OUT)[:] = out.transpose(2, 3, 0, 4, 1)
    return np.ascontiguousarray(y[:, :, :height, :width])


def _to_whole_tiles(x: Array, down: int, across: int) -> Array:
    missing = [n * _OUT + 2 - size for n, size in zip((down, across), x.shape[2:], strict=True)]
    if not any(missing):
        return x
    return np.pad(x, [(0, 0), (0, 0), *((0, n) for n in missing)])


def _tiles(x: Array, first: int, last: int, across: int) -> Array:
    """[36, C, tiles]: overlapping 6x6 tiles, a row for each place in the tile."""
    c = x.shape[0]
    channel, row, unit = x.strides
    seen = as_strided(
        x[:, first * _OUT :],
        (_IN, _IN, c, last - first, across),
        (row, unit, channel, _OUT * row, _OUT * unit),
        writeable=False,
    )
    return np.ascontiguousarray(seen).reshape(_IN * _IN, c, -1)


def _products(tiles: Array, kernels: Array) -> Array:
    """[16, M * tiles]."""
    places, c, count = tiles.shape
    turned = _INPUT_2D.astype(tiles.dtype) @ tiles.reshape(places, c * count)
    sums = np.matmul(kernels, turned.reshape(places, c, count))
    result: Array = _OUTPUT_2D.astype(tiles.dtype) @ sums.reshape(places, -1)
    return result
