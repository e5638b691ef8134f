"""Convolution and its transpose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.arrays import Array, as_type, beside_axis, check_room, widened
from infer_runtime.ops.convolve import convolve
from infer_runtime.ops.window import Window, pad_spatial, window
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence


@op("Conv")
def Conv(
    X: Array,
    W: Array,
    B: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Cross-correlation of X [N, C, ...] with W [M, C/group, ...]; narrow floats in float32."""
    del kernel_shape  # the shape of W says it
    where = window(
        X.shape[2:], W.shape[2:], strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad
    )
    y = convolve(widened(X), widened(W), where, group)
    if B is not None:
        y += beside_axis(widened(B), 1, y.ndim)
    return as_type(y, X.dtype)


@op("ConvTranspose")
def ConvTranspose(
    X: Array,
    W: Array,
    B: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The transpose of Conv: each input adds W [C, M/group, ...] around its place."""
    del kernel_shape
    where, extra = transposed_geometry(
        X.shape[2:], W.shape[2:], strides, dilations, pads, auto_pad, output_padding, output_shape
    )
    y = _scatter(widened(X), widened(W), where, group)
    ends = [e - n for e, n in zip(extra, where.ends, strict=True)]
    y = pad_spatial(y, [-b for b in where.begins], ends)
    if B is not None:
        y = y + beside_axis(widened(B), 1, y.ndim)
    return as_type(y, X.dtype)


def transposed_geometry(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    output_padding: Sequence[int] | None,
    output_shape: Sequence[int] | None,
) -> tuple[Window, tuple[int, ...]]:
    """The window of the forward convolution, and what is added at the end of each axis."""
    rank = len(size)
    strides = tuple(strides or [1] * rank)
    dilations = tuple(dilations or [1] * rank)
    extra = tuple(output_padding or [0] * rank)
    full = _full_size(size, kernel, strides, dilations)
    if output_shape is None and auto_pad.startswith("SAME"):
        output_shape = tuple(n * s for n, s in zip(size, strides, strict=True))
    begins, ends = _transposed_pads(full, extra, pads, auto_pad, output_shape)
    return Window(tuple(kernel), strides, dilations, begins, ends, tuple(size)), extra


def _full_size(
    size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[int, ...]:
    """The output before anything is cut off."""
    return tuple(
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)
    )


def _transposed_pads(
    full: Sequence[int],
    extra: Sequence[int],
    pads: Sequence[int] | None,
    auto_pad: str,
    output_shape: Sequence[int] | None,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What to cut off at each side; ONNX ConvTranspose, `output_shape`."""
    rank = len(full)
    if output_shape is None:
        pads = tuple(pads or [0] * (2 * rank)) if auto_pad == "NOTSET" else (0,) * (2 * rank)
        return pads[:rank], pads[rank:]
    totals = [f + e - n for f, e, n in zip(full, extra, output_shape[-rank:], strict=True)]
    more_at_end = auto_pad == "SAME_UPPER"
    begins = tuple(t // 2 if more_at_end else t - t // 2 for t in totals)
    return begins, tuple(t - b for t, b in zip(totals, begins, strict=True))


def _scatter(x: Array, w: Array, where: Window, group: int) -> Array:
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"{x.shape[1]} input channels do not fit weights {list(w.shape)}")
    batch, c, per_group = x.shape[0], w.shape[0] // group, w.shape[1]
    taps = math.prod(where.kernel)
    weights = w.reshape(group, c, per_group * taps).swapaxes(1, 2)
    columns = np.matmul(weights, x.reshape(batch, group, c, -1))
    columns = columns.reshape(batch, group * per_group, taps, *where.out)
    full = _full_size(where.out, where.kernel, where.strides, where.dilations)
    check_room((batch, group * per_group, *full), x.itemsize)
    y = np.zeros((batch, group * per_group, *full), x.dtype)
    for number, target in enumerate(where.taps(y)):
        target += columns[:, :, number]
    return y
