"""Products of bits: fast ways to compute functions of the domain `infertool` (quant.binarize).

A sum of n products of -1 and 1 is n - 2 * (places where the two differ): XOR, then counting bits
(Rastegari et al. 2016, "XNOR-Net", section 3.2). The sums are exact integers, so that the results
are those of the function's own body, bit for bit.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from infer_runtime.functions import LOCAL
from infer_runtime.ops.prepared import prepares
from infer_runtime.ops.window import Window, window
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_runtime.arrays import Array

_BUFFER_BYTES = 1 << 19
_WORD = 8  # bytes counted at once


class Weights(NamedTuple):
    """The bits of a convolution as its kernel reads them."""

    words: Array  # uint64 [groups, M/group, words]: by taps, then channels
    sums: Array  # float32 [M, taps]: the sum of the weights of a tap


@op("XnorConv", domain=LOCAL)
def XnorConv(
    x: Array,
    threshold: Array,
    packed: Array,
    scale: Array,
    bias: Array,
    *,
    shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Array:
    """Conv of (x >= threshold) with bits, both -1 or 1; its sums * scale + bias.

    x [N, C, ...], threshold [C, 1, ...], packed uint8: the weight [M, C/group, ...] = `shape`, bit
    i of its elements in row-major order in bit i % 8 of byte i // 8, scale float16 [M, 1, ...],
    bias [M, 1, ...] -> [N, M, ...]. Padding adds nothing to a sum.
    """
    weights = _conv_weights(packed, tuple(shape), group)
    where = window(x.shape[2:], shape[2:], strides=strides, dilations=dilations, pads=pads)
    sums = _convolved(x >= threshold, weights, where, math.prod(shape[1:]))
    return sums * scale.astype(x.dtype) + bias


@op("XnorGemm", domain=LOCAL)
def XnorGemm(
    x: Array, threshold: Array, packed: Array, scale: Array, bias: Array, *, shape: Sequence[int]
) -> Array:
    """Rows of (x >= threshold) with rows of bits, both -1 or 1; their sums * scale + bias.

    x [..., K], threshold [K], packed uint8: the weight [M, K] = `shape` as in XnorConv, scale
    float16 [M], bias [M] -> [..., M].
    """
    return _gemm(x, threshold, _words(_bits(packed, shape)), scale, bias)


@prepares(XnorConv)
def _prepared_conv(
    threshold: Array,
    packed: Array,
    scale: Array,
    bias: Array,
    *,
    shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Callable[..., Array]:
    weights, factor = _conv_weights(packed, tuple(shape), group), scale.astype(np.float32)
    size = math.prod(shape[1:])

    def run(x: Array, *_: Array) -> Array:
        where = window(x.shape[2:], shape[2:], strides=strides, dilations=dilations, pads=pads)
        return _convolved(x >= threshold, weights, where, size) * factor + bias

    return run


@prepares(XnorGemm)
def _prepared_gemm(
    threshold: Array, packed: Array, scale: Array, bias: Array, *, shape: Sequence[int]
) -> Callable[..., Array]:
    words = _words(_bits(packed, shape))
    return lambda x, *_: _gemm(x, threshold, words, scale, bias)


def _gemm(x: Array, threshold: Array, words: Array, scale: Array, bias: Array) -> Array:
    seen = _words((x >= threshold).reshape(-1, x.shape[-1]))
    sums = _sums(words, seen, x.shape[-1]).T.reshape(*x.shape[:-1], len(words))
    return sums * scale.astype(x.dtype) + bias


def _bits(packed: Array, shape: Sequence[int]) -> Array:
    flat = np.unpackbits(packed, bitorder="little")
    return flat[: math.prod(shape)].reshape(shape)


def _conv_weights(packed: Array, shape: tuple[int, ...], group: int) -> Weights:
    bits = _bits(packed, shape).reshape(*shape[:2], -1)  # [M, C/group, taps]
    by_tap = np.packbits(bits.transpose(0, 2, 1), axis=-1, bitorder="little")
    words = _in_words(by_tap.reshape(shape[0], -1))
    sums = 2 * bits.sum(1, dtype=np.float32) - shape[1]
    return Weights(words.reshape(group, -1, words.shape[-1]), sums.astype(np.float32))


def _words(bits: Array) -> Array:
    """Rows of bits -> rows of uint64; zeros fill the last word."""
    return _in_words(np.packbits(bits, axis=-1, bitorder="little"))


def _in_words(rows: Array) -> Array:
    size = -(-rows.shape[-1] // _WORD) * _WORD
    if size != rows.shape[-1]:
        filled = np.zeros((*rows.shape[:-1], size), np.uint8)
        filled[..., : rows.shape[-1]] = rows
        rows = filled
    return np.ascontiguousarray(rows).view(np.uint64)


def _convolved(bits: Array, weights: Weights, where: Window, size: int) -> Array:
    """Sums of products: bits [N, C, ...] -> float32 [N, M, ...]."""
    groups, m, _ = weights.words.shape
    each = bits.reshape(len(bits), groups, -1, *bits.shape[2:])
    packed = np.packbits(np.moveaxis(each, 2, -1), axis=-1, bitorder="little")
    # The taps of a window index the last axes: the bytes of a pixel go before them.
    padded = where.pad(np.moveaxis(packed, -1, 2))
    taps = np.stack([np.moveaxis(tap, 2, -1) for tap in where.taps(padded)], axis=-2)
    places = math.prod(where.out)
    rows = _in_words(taps.reshape(len(bits), groups, places, -1))
    y = np.empty((len(bits), groups, m, places), np.float32)
    for n in range(len(bits)):
        for g in range(groups):
            y[n, g] = _sums(weights.words[g], rows[n, g], size)
    y = y.reshape(len(bits), groups * m, places)
    if (outside := _outside(where, bits.shape[2:])) is not None:
        y += weights.sums @ outside
    return y.reshape(len(bits), groups * m, *where.out)


@lru_cache(maxsize=128)
def _outside(where: Window, size: tuple[int, ...]) -> Array | None:
    """float32 [taps, outputs]: 1 where a tap meets padding, whose bits counted as -1."""
    if not any(where.begins) and not any(where.ends):
        return None
    plane = where.pad(np.zeros(size, np.float32), 1)
    return np.stack([tap.reshape(-1) for tap in where.taps(plane)])


def _sums(a: Array, b: Array, size: int) -> Array:
    """Rows of words with rows of words -> float32 [rows of a, rows of b]."""
    sums = np.empty((len(a), len(b)), np.float32)
    step = max(1, _BUFFER_BYTES // (_WORD * max(len(a), 1)))
    left = np.ascontiguousarray(a.T)
    for first in range(0, len(b), step):
        right = np.ascontiguousarray(b[first : first + step].T)
        differ = np.zeros((len(a), right.shape[1]), np.uint32)
        work = np.empty(differ.shape, np.uint64)
        count = np.empty(differ.shape, np.uint8)
        for word, other in zip(left, right, strict=True):
            np.bitwise_xor(word[:, None], other, out=work)
            differ += np.bitwise_count(work, out=count)
        sums[:, first : first + step] = size - 2 * differ.astype(np.int64)
    return sums
