"""Sliding windows: padding, output sizes and views that convolution and pooling share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]


def resolve_pads(
    auto_pad: str, pads: Ints | None, size: Ints, kernel: Ints, strides: Ints, dilations: Ints
) -> list[tuple[int, int]]:
    """(begin, end) padding of each spatial axis (ONNX operator Conv, attribute auto_pad)."""
    n = len(size)
    if auto_pad in ("NOTSET", ""):
        pads = pads or (0,) * (2 * n)
        return [(pads[i], pads[i + n]) for i in range(n)]
    if auto_pad == "VALID":
        return [(0, 0)] * n
    result = []
    for i in range(n):
        steps = -(-size[i] // strides[i])
        total = max((steps - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - size[i], 0)
        small, large = total // 2, total - total // 2
        result.append((small, large) if auto_pad == "SAME_UPPER" else (large, small))
    return result


def pad_spatial(X: Array, pads: list[tuple[int, int]], value: Any = 0) -> Array:
    """Pad the spatial axes of [N, C, ...]; negative pads crop."""
    if not any(low or high for low, high in pads):
        return X
    crop = tuple(
        slice(max(-low, 0), X.shape[i + 2] - max(-high, 0)) for i, (low, high) in enumerate(pads)
    )
    grow = [(0, 0), (0, 0), *((max(low, 0), max(high, 0)) for low, high in pads)]
    return np.pad(X[(slice(None), slice(None), *crop)], grow, constant_values=value)


def windows(X: Array, kernel: Ints, strides: Ints, dilations: Ints) -> Array:
    """A view [N, C, out..., kernel...] of the padded input [N, C, ...]."""
    n = len(kernel)
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    if any(span > size for span, size in zip(spans, X.shape[2:], strict=True)):
        raise ValueError(f"window {spans} is larger than the padded input {X.shape[2:]}")
    view = sliding_window_view(X, spans, axis=tuple(range(2, 2 + n)))
    steps = tuple(slice(None, None, s) for s in strides)
    taps = tuple(slice(None, None, d) for d in dilations)
    return view[(slice(None), slice(None), *steps, *taps)]


def tap(X: Array, at: Ints, out: Ints, strides: Ints, dilations: Ints) -> Array:
    """The inputs that one kernel position sees, [N, C, out...], as a view."""
    spatial = tuple(
        slice(k * d, k * d + (o - 1) * s + 1, s)
        for k, d, o, s in zip(at, dilations, out, strides, strict=True)
    )
    return X[(slice(None), slice(None), *spatial)]


def output_size(size: Ints, kernel: Ints, strides: Ints, dilations: Ints) -> Ints:
    """Number of windows along each axis of the padded input."""
    return tuple(
        (n - (k - 1) * d - 1) // s + 1
        for n, k, s, d in zip(size, kernel, strides, dilations, strict=True)
    )
