"""Resize and Upsample: one weighted gather for each axis (the filters are separable)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.arrays import (
    Array,
    as_type,
    beside_axis,
    check_room,
    integer_like,
    is_integer,
    like,
    namespace,
    number,
    positive_axes,
    widened,
)  # fmt: skip
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Filter:
    """How an axis is sampled; the fields are the attributes of Resize."""

    mode: str = "nearest"
    transform: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis: its length, the length to come, the scale, the part of interest."""

    size: int
    out: int
    scale: float
    start: float = 0.0
    end: float = 1.0


@op("Resize", since=11, library="any")
def Resize(
    X: Array,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Array:
    """Sample X at new sizes (ONNX Resize 19; earlier ones are special cases of it)."""
    over = positive_axes(axes, X.ndim) if axes else tuple(range(X.ndim))
    plan = _axes(X, over, roi, scales, sizes, keep_aspect_ratio_policy)
    check_room([*X.shape, *(max(1, line.out // max(1, line.size)) for line in plan)], 8)
    how = Filter(
        mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a,
        bool(antialias), bool(exclude_outside),
    )  # fmt: skip
    y, outside = X, np.zeros((1,) * X.ndim, bool)
    if mode != "nearest":
        y = as_type(X, namespace(X).float32) if is_integer(X.dtype) else widened(X)
    for axis, line in zip(over, plan, strict=True):
        if line.size == line.out and line.scale == 1 and how.transform != "tf_crop_and_resize":
            continue
        at = _coordinates(line, how.transform)
        y = _sample(y, axis, at, line, how)
        if how.transform == "tf_crop_and_resize":
            beyond = (at < 0) | (at > line.size - 1)
            outside = outside | beside_axis(beyond, axis, X.ndim)
    if outside.any():
        xp = namespace(y)
        y = xp.where(xp.asarray(outside), number(extrapolation_value, y), y)
    return as_type(y, X.dtype)


@op("Resize", since=10, library="any")
def Resize_10(X: Array, scales: Array, *, mode: str = "nearest") -> Array:
    """Opset 10 knows one coordinate transformation."""
    return Resize(
        X, None, scales, mode=mode, coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )  # fmt: skip


@op("Upsample", since=9, library="any")
def Upsample(X: Array, scales: Array, *, mode: str = "nearest") -> Array:
    """The name of Resize before opset 10."""
    return Resize_10(X, scales, mode=mode)


@op("Upsample", since=7, library="any")
def Upsample_7(X: Array, *, scales: Sequence[float], mode: str = "nearest") -> Array:
    """Before opset 9 scales are an attribute."""
    return Resize_10(X, np.array(scales, np.float32), mode=mode)


def _axes(
    X: Array, over: Sequence[int], roi: Array | None, scales: Array | None, sizes: Array | None,
    policy: str,
) -> list[Axis]:  # fmt: skip
    lengths = [X.shape[a] for a in over]
    if sizes is not None and len(sizes):
        out, factors = _by_sizes(lengths, [int(n) for n in sizes], policy)
    elif scales is not None and len(scales) == len(over):
        factors = [float(s) for s in scales]
        out = [int(np.floor(n * s)) for n, s in zip(lengths, factors, strict=True)]
    else:
        raise ValueError("either scales or sizes must have one entry for each resized axis")
    n = len(over)
    part = [0.0] * n + [1.0] * n if roi is None or not len(roi) else [float(v) for v in roi]
    return [Axis(lengths[i], out[i], factors[i], part[i], part[i + n]) for i in range(n)]


def _by_sizes(lengths: list[int], sizes: list[int], policy: str) -> tuple[list[int], list[float]]:
    factors = [s / n for s, n in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return sizes, factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [int(np.floor(factor * n + 0.5)) for n in lengths], [factor] * len(lengths)


def _coordinates(line: Axis, transform: str) -> Array:
    """Where each output element lies in the input, in input elements."""
    x = np.arange(line.out, dtype=np.float64)
    if transform == "asymmetric":
        return x / line.scale
    if transform == "align_corners":
        return x * (line.size - 1) / (line.out - 1) if line.out > 1 else x * 0
    if transform == "tf_crop_and_resize":
        span = (line.end - line.start) * (line.size - 1)
        if line.out > 1:
            return line.start * (line.size - 1) + x * span / (line.out - 1)
        return x + 0.5 * (line.start + line.end) * (line.size - 1)
    if transform == "tf_half_pixel_for_nn":
        return (x + 0.5) / line.scale
    if transform == "pytorch_half_pixel" and line.out == 1:
        return x * 0 - 0.5
    offset = 0.0
    if transform == "half_pixel_symmetric":
        # Keeps the centre when the scaled length is not whole.
        offset = line.size / 2 * (1 - line.out / (line.scale * line.size))
    elif transform not in {"half_pixel", "pytorch_half_pixel"}:
        raise ValueError(f"unknown coordinate_transformation_mode {transform!r}")
    return offset + (x + 0.5) / line.scale - 0.5


def _sample(x: Array, axis: int, at: Array, line: Axis, how: Filter) -> Array:
    if how.mode == "nearest":
        index = np.clip(_nearest(at, how.nearest), 0, line.size - 1)
        return namespace(x).take(x, integer_like(index, x), axis=axis)
    places, weights = _filter_taps(at, line, how)
    inside = np.clip(places, 0, line.size - 1)
    xp, y = namespace(x), None
    for tap in range(places.shape[0]):
        weight = beside_axis(as_type(like(weights[tap], x), x.dtype), axis, x.ndim)
        part = xp.take(x, integer_like(inside[tap], x), axis=axis) * weight
        y = part if y is None else y + part
    assert y is not None
    return y


def _nearest(at: Array, mode: str) -> Array:
    if mode == "floor":
        return np.floor(at).astype(np.int64)
    if mode == "ceil":
        return np.ceil(at).astype(np.int64)
    up = np.floor(at + 0.5) if mode == "round_prefer_ceil" else np.ceil(at - 0.5)
    return up.astype(np.int64)


def _filter_taps(at: Array, line: Axis, how: Filter) -> tuple[Array, Array]:
    """[taps, out]: the input elements that an output is made of, and their weights."""
    radius = 1.0 if how.mode == "linear" else 2.0
    # When shrinking, antialias widens the filter so that it meets every input element.
    stretch = max(1.0, 1 / line.scale) if how.antialias else 1.0
    reach = int(np.ceil(radius * stretch))
    offsets = np.arange(-reach + 1, reach + 1)[:, None]
    places = np.floor(at).astype(np.int64) + offsets
    distance = np.abs(at - places) / stretch
    weights = np.maximum(0, 1 - distance) if how.mode == "linear" else _cubic(distance, how.cubic)
    if how.exclude_outside:
        weights = np.where((places >= 0) & (places < line.size), weights, 0)
    return places, weights / weights.sum(axis=0)


def _cubic(distance: Array, a: float) -> Array:
    """Keys, Cubic convolution interpolation (1981)."""
    d = distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))
