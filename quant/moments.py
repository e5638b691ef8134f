"""First and second moments of what the weights of a model meet: gathered while calibrating."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.ops.window import Window, window
from passes.graph import constant

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

# Rows looked at in one batch: several times as many as a row has entries, within these limits.
ROWS_PER_ENTRY, FEWEST_ROWS, MOST_ROWS = 8, 128, 1024
LARGEST_BYTES = 1 << 28  # of the second moments of one weight


@dataclass
class Moments:
    """Sums over the inputs of one weight, seen as `groups` matrices [outputs, K].

    second [groups, K, K] and mean [groups, K] are expectations of x x' and x; largest [groups, K]
    is the largest |x| seen. Without `products` only the latter two are gathered.
    """

    groups: int
    size: int
    products: bool = True
    rows: int = 0
    largest: Array = field(init=False)
    _products: Array = field(init=False)
    _sums: Array = field(init=False)

    def __post_init__(self) -> None:
        """Start from nothing."""
        self.largest = np.zeros((self.groups, self.size))
        size = self.size if self.products else 0
        self._products = np.zeros((self.groups, size, size))
        self._sums = np.zeros((self.groups, self.size))

    def add(self, x: Array) -> None:
        """Account for rows [groups, rows, K]."""
        if self.products:
            self._products += np.matmul(x.swapaxes(1, 2), x)
        self._sums += x.sum(axis=1)
        self.largest = np.maximum(self.largest, np.abs(x).max(axis=1, initial=0.0))
        self.rows += x.shape[1]

    @property
    def second(self) -> Array:
        """E[x x'], [groups, K, K]; with few rows drawn towards independent entries.

        K entries of a row need more than K rows to show how they go together (Ledoit and Wolf,
        2004, on such shrinkage); until then rounding must not rely on it.
        """
        found = self._products / max(self.rows, 1)
        return np.asarray(found + shrinkage(found, self.rows))

    @property
    def centred(self) -> Array:
        """E[(x - mean) (x - mean)'], likewise: what is left where a bias takes the mean error."""
        mean = self.mean
        found = self._products / max(self.rows, 1) - mean[:, :, None] * mean[:, None]
        return np.asarray(found + shrinkage(found, self.rows))

    @property
    def mean(self) -> Array:
        """E[x], [groups, K]."""
        return self._sums / max(self.rows, 1)


class Watch:
    """Gathers the moments of all weights of some nodes from the values that go by."""

    def __init__(self, nodes: Iterable[ir.Node], *, products: bool = True) -> None:
        """Watch Conv, Gemm and MatMul nodes with constant weights."""
        self.moments: dict[str, Moments] = {}
        self.too_large: list[str] = []
        self._readers: dict[str, list[ir.Node]] = {}
        self._batch = 0
        layouts: dict[str, tuple[int, ...]] = {}
        for node in nodes:
            weight = node.inputs[1]
            array = constant(weight)
            if weight is None or array is None:
                continue
            name, shape = weight.name or "", rows_of(node, array).shape
            if layouts.setdefault(name, shape) != shape or (products and is_large(shape)):
                self.too_large.append(node.name or "")
                continue
            self.moments.setdefault(name, Moments(shape[0], shape[2], products))
            assert node.inputs[0] is not None
            self._readers.setdefault(node.inputs[0].name or "", []).append(node)

    def sees(self, name: str) -> bool:
        """Does a watched weight meet this value?"""
        return name in self._readers

    def see(self, name: str, value: Array) -> None:
        """Account for a value, if a watched weight meets it."""
        for node in self._readers.get(name, ()):
            weight = node.inputs[1]
            assert weight is not None
            if value.size:
                rows = met_rows(node, value.astype(np.float32), self._batch)
                self.moments[weight.name or ""].add(rows)

    def next_batch(self) -> None:
        """Look at other places of the next batch."""
        self._batch += 1


def shrinkage(found: Array, rows: int) -> Array:
    """What draws second moments [groups, K, K] of so many rows towards independent entries."""
    size = found.shape[-1]
    doubt = np.trace(found, axis1=1, axis2=2) / max(rows, 1)
    return np.asarray(doubt[:, None, None] * np.eye(size))


def met_rows(node: ir.Node, value: Array, batch: int) -> Array:
    """[groups, rows, K]: some of what the weight meets in a value, elsewhere in each batch."""
    if node.op_type != "Conv":
        rows = value.reshape(-1, value.shape[-1])
        return rows[_chosen(batch, len(rows), _wanted(value.shape[-1]))][None]
    weight = constant(node.inputs[1])
    assert weight is not None
    where = geometry(node, value.shape[2:], weight.shape[2:])
    wanted = _wanted(math.prod(weight.shape[1:])) // len(value)
    chosen = _chosen(batch, math.prod(where.out), wanted)
    return patches(value, where, chosen, node.attributes.get_int("group", 1))


def _chosen(batch: int, count: int, wanted: int) -> slice:
    """Some of `count` places, evenly, and others in the next batch."""
    step = max(1, count // max(1, wanted))
    return slice(batch % step, None, step)


def _wanted(entries: int) -> int:
    return min(max(ROWS_PER_ENTRY * entries, FEWEST_ROWS), MOST_ROWS)


def geometry(node: ir.Node, size: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """The windows of a Conv over an input of this size."""
    given: dict[str, Any] = {
        name: node.attributes[name].as_ints()
        for name in ("strides", "dilations", "pads")
        if name in node.attributes
    }
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    return window(size, kernel, auto_pad=auto_pad, **given)


def patches(x: Array, where: Window, chosen: slice, groups: int) -> Array:
    """[groups, N * places, C/groups * taps]: what the kernel meets at some places."""
    padded = where.pad(x)
    plane = np.arange(math.prod(padded.shape[2:])).reshape(padded.shape[2:])
    taps = np.stack([tap.reshape(-1)[chosen] for tap in where.taps(plane)], axis=1)
    seen = padded.reshape(*padded.shape[:2], -1)[:, :, taps]  # [N, C, places, taps]
    n, c, places, count = seen.shape
    split = seen.reshape(n, groups, c // groups, places, count).transpose(1, 0, 3, 2, 4)
    return np.ascontiguousarray(split).reshape(groups, n * places, c // groups * count)


def rows_of(node: ir.Node, weight: Array) -> Array:
    """The weight of a node as [groups, outputs / groups, K]: one row for each output."""
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        return weight.reshape(groups, weight.shape[0] // groups, -1)
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return (weight if transposed else weight.T)[None]


def weight_of(node: ir.Node, rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `rows_of`."""
    if node.op_type == "Conv":
        return rows.reshape(shape)
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return np.ascontiguousarray(rows[0] if transposed else rows[0].T)


def is_large(shape: tuple[int, ...]) -> bool:
    """Do the second moments of a weight, as `rows_of` shapes it, take too much memory?"""
    return shape[0] * shape[2] ** 2 * np.dtype(np.float64).itemsize > LARGEST_BYTES
