"""k-means on a line: the table of least squared error, without random starts."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

ROUNDS = 30  # Lloyd's iterations; the error changes by less than a thousandth after them
HISTOGRAM = 1 << 16  # larger weights are clustered by their histogram, at 1/65536 of the range
POINTS = 2048  # up to so many distinct values the start is the optimum itself


def fit_table(x: Array, count: int) -> Array:
    """The sorted table (float32, [count]) of least squared error that is found for some numbers.

    It starts at the optimum, of larger arrays at that of 2048 equal shares of the sorted values;
    Lloyd's algorithm (1982) then sees all of them. The same numbers give the same table; where
    they have fewer distinct values than `count`, the largest is repeated.
    """
    values, counts = _histogram(x.reshape(-1).astype(np.float64))
    if values.size <= count:
        padded = np.full(count, values[-1])
        padded[: values.size] = values
        return np.asarray(padded, np.float32)
    table = _optimum(*_thinned(values, counts), count)
    for _ in range(ROUNDS):
        owner = np.searchsorted((table[1:] + table[:-1]) / 2, values)
        weight = np.bincount(owner, counts, table.size)
        total = np.bincount(owner, counts * values, table.size)
        table = np.sort(np.where(weight > 0, total / np.maximum(weight, 1e-300), table))
    return np.asarray(table, np.float32)


def _histogram(x: Array) -> tuple[Array, Array]:
    """Distinct values and how often they occur, of large arrays on a grid."""
    if x.size > HISTOGRAM:
        low, high = x.min(), x.max()
        step = (high - low) / (HISTOGRAM - 1) or 1.0
        counts = np.bincount(np.rint((x - low) / step).astype(np.int64), minlength=HISTOGRAM)
        used = np.flatnonzero(counts)
        return low + used * step, counts[used].astype(np.float64)
    values, counts = np.unique(x, return_counts=True)
    return values, counts.astype(np.float64)


def _thinned(values: Array, counts: Array) -> tuple[Array, Array]:
    """At most `POINTS` means of neighbours, which stand for as many numbers each."""
    if values.size <= POINTS:
        return values, counts
    place = (np.cumsum(counts) - counts) * (POINTS / counts.sum())
    starts = np.unique(np.searchsorted(place, np.arange(POINTS)).clip(max=values.size - 1))
    weight = np.add.reduceat(counts, starts)
    return np.add.reduceat(counts * values, starts) / weight, weight


def _optimum(values: Array, counts: Array, count: int) -> Array:
    """The best table for sorted values, by dynamic programming over how many values it ends with.

    The best start of the last cluster grows with its end, so that each row takes n log n steps
    (Groenlund et al. 2017, "Fast exact k-means, k-medians and Bregman divergence clustering in 1D",
    section 2).
    """
    middle = float(np.average(values, weights=counts))
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(counts * (values - middle))])

    def gain(start: Array, end: Array) -> Array:
        """What a cluster of values[start:end] takes off the squared error around the middle."""
        return np.asarray((total[end] - total[start]) ** 2 / (weight[end] - weight[start]))

    ends = np.arange(1, values.size + 1)
    best = np.concatenate([[0.0], gain(np.zeros_like(ends), ends)])
    starts = []
    for number in range(1, count):
        best, start = _row(best, gain, number)
        starts.append(start)
    edges = [values.size]
    for start in reversed(starts):
        edges.append(int(start[edges[-1]]))
    bounds = np.array([0, *reversed(edges)])
    means = (total[bounds[1:]] - total[bounds[:-1]]) / (weight[bounds[1:]] - weight[bounds[:-1]])
    return np.asarray(means + middle)


def _row(before: Array, gain: Any, number: int) -> tuple[Array, Array]:
    """The best sums with one cluster more for every end, and where that cluster starts."""
    size = before.size - 1
    best = np.full(size + 1, -np.inf)
    choice = np.full(size + 1, number)
    done = np.array([number, size + 1])  # ends whose choice is known, and beyond the last one
    choice_of = np.array([number, size])
    todo = np.arange(number + 1, size + 1)
    stride = 1 << todo.size.bit_length()
    while stride:  # ever nearer ends: each lies between two whose choices bound its own
        ends = todo[stride - 1 :: 2 * stride]
        if ends.size:
            after = np.searchsorted(done, ends)
            low, high = choice_of[after - 1], np.minimum(choice_of[after], ends - 1)
            chosen, value = _best_of(low, high, ends, before, gain)
            choice[ends], best[ends] = chosen, value
            done = np.insert(done, after, ends)
            choice_of = np.insert(choice_of, after, chosen)
        stride //= 2
    return best, choice


def _best_of(low: Array, high: Array, ends: Array, before: Array, gain: Any) -> tuple[Array, Array]:
    """For each end the start in [low, high] of the largest sum, the first of equal ones."""
    sizes = high - low + 1
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    start = np.arange(sizes.sum()) + np.repeat(low - first, sizes)
    sums = before[start] + gain(start, np.repeat(ends, sizes))
    value = np.maximum.reduceat(sums, first)
    hits = np.flatnonzero(sums == np.repeat(value, sizes))
    return start[hits[np.searchsorted(hits, first)]], value
