"""Sparse weights: from the compressed levels of a file to a dense array.

A tensor is stored as a tree with one level for each axis, and one for each axis inside a block; a
level is dense, or lists the coordinates that it has (compressed sparse rows).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.errors import ModelError

if TYPE_CHECKING:
    from infer_tool.importers.tflite.flatbuffer import Array, Table

DENSE = 0
_VECTORS = {1: "int32", 2: "uint16", 3: "uint8"}  # of the union SparseIndexVector


def densify(sparsity: Table, values: Array, shape: tuple[int, ...]) -> Array:
    """Spread the stored values over zeros.

    Args:
        sparsity: the table SparsityParameters.
        values: [stored] in the order of the tree's leaves.
        shape: of the result.

    Raises:
        ModelError: the parameters contradict each other, the shape or the number of values.

    """
    order, blocks = sparsity.integers(0), sparsity.integers(1)
    levels = sparsity.tables(2)
    rank = len(shape)
    if sorted(order) != list(range(rank + len(blocks))) or len(levels) != len(order):
        raise ModelError("a sparse tensor has axes that do not fit its shape")
    if any(not 0 <= axis < rank for axis in blocks) or len(set(blocks)) != len(blocks):
        raise ModelError("a sparse tensor has blocks along axes that it has not")
    sizes = _block_sizes(order, blocks, levels, shape)
    places, coordinates = _walk(levels, len(values))
    if len(places) and int(places.max()) >= len(values):
        raise ModelError(f"a sparse tensor has {len(values)} values, fewer than its structure")
    full = np.zeros((rank, len(places)), np.int64)
    for axis, found in zip(order, coordinates, strict=True):
        own = axis if axis < rank else blocks[axis - rank]
        full[own] += found * (sizes[own] if axis < rank else 1)
    for axis, size in enumerate(shape):
        if len(places) and not 0 <= int(full[axis].min()) <= int(full[axis].max()) < size:
            raise ModelError("a sparse tensor has values outside its shape")
    dense = np.zeros(shape, values.dtype)
    dense[tuple(full)] = values[places]
    return dense


def _block_sizes(
    order: tuple[int, ...], blocks: tuple[int, ...], levels: list[Table], shape: tuple[int, ...]
) -> list[int]:
    """Elements of a block along each axis."""
    sizes = [1] * len(shape)
    for axis, level in zip(order, levels, strict=True):
        if axis >= len(shape):
            sizes[blocks[axis - len(shape)]] = max(int(level.number(1, "int32")), 1)
    return sizes


def _walk(levels: list[Table], count: int) -> tuple[Array, list[Array]]:
    """The place of every leaf among the values, and its coordinate on every level."""
    places = np.zeros(1, np.int64)
    coordinates: list[Array] = []
    for level in levels:
        if level.number(0, "int8") == DENSE:
            parents, places, own = _dense(level, places, count)
        else:
            parents, places, own = _compressed(level, places)
        if len(places) > count:
            raise ModelError(f"a sparse tensor has {count} values, fewer than its structure")
        coordinates = [c[parents] for c in coordinates] + [own]
    return places, coordinates


def _dense(level: Table, places: Array, count: int) -> tuple[Array, Array, Array]:
    size = int(level.number(1, "int32"))
    if not 0 <= size <= count or len(places) * size > count:
        raise ModelError(f"a sparse tensor has {count} values, fewer than its structure")
    own = np.tile(np.arange(size), len(places))
    parents = np.repeat(np.arange(len(places)), size)
    return parents, places[parents] * size + own, own


def _compressed(level: Table, places: Array) -> tuple[Array, Array, Array]:
    segments, indices = _vector(level, 2), _vector(level, 4)
    if len(places) and int(places.max()) + 1 >= len(segments):
        raise ModelError("a sparse tensor has fewer segments than rows")
    starts, ends = segments[places], segments[places + 1]
    lengths = ends - starts
    if len(places) and (int(starts.min()) < 0 or int(lengths.min()) < 0):
        raise ModelError("a sparse tensor has segments that do not grow")
    if int(lengths.sum()) > len(indices) or (len(ends) and int(ends.max()) > len(indices)):
        raise ModelError("a sparse tensor has segments beyond its indices")
    parents = np.repeat(np.arange(len(places)), lengths)
    before = np.cumsum(lengths) - lengths
    inner = np.arange(len(parents)) - before[parents] + starts[parents]
    return parents, inner, indices[inner]


def _vector(level: Table, slot: int) -> Array:
    """A vector of one of three integer types, as int64."""
    kind, table = level.number(slot, "uint8"), level.table(slot + 1)
    if kind not in _VECTORS or table is None:
        raise ModelError("a sparse tensor lacks its indices")
    return table.numbers(0, _VECTORS[kind]).astype(np.int64)
