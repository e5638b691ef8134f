"""How bits lie in memory, those of images and of weights, and what sums of them begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from infer_native.levels import Levels
    from infer_native.program import Array
    from infer_runtime.ops.window import Window

BITS = 32  # of a word
BYTE = 8
WORD = BITS // BYTE  # bytes


@dataclass(frozen=True)
class Image:
    """Where the bits of an image lie: `lines` of `line` pixels of `pitch` bytes, with a border.

    The first pixel is number `first`; `size` bytes make a sample, a word more than are used.
    """

    lines: int
    line: int
    pitch: int
    first: int

    @property
    def size(self) -> int:
        """Bytes of a sample."""
        return (-(-self.lines * self.line * self.pitch // WORD) + 1) * WORD


@dataclass(frozen=True)
class Signs:
    """Bits that a layer makes of its result: where they lie, and the limit of each channel."""

    image: Image
    limits: Array


@dataclass(frozen=True)
class Runs:
    """What a filter reads of a line: `count` runs of `bytes`, `step` bytes apart."""

    count: int
    step: int
    bytes: int

    @property
    def words(self) -> int:
        """Words of a run."""
        return -(-self.bytes // WORD)

    @property
    def rest(self) -> int:
        """Bytes of the last word, where it is not full."""
        return self.bytes % WORD


@dataclass(frozen=True)
class Target:
    """Where results go: steps from pixel to pixel and from column to column; lanes of the last."""

    step: int
    column: int
    part: int = 0
    stored: bool = True


def packed(signs: Array, words: int) -> Array:
    """[M, runs, n] as uint32 [runs, words, M]: a bit where a sign is positive, zeros behind n."""
    m, runs, size = signs.shape
    padded = np.zeros((m, runs, words * BITS), np.uint8)
    padded[..., :size] = signs > 0
    bits = np.packbits(padded, axis=-1, bitorder="little").view("<u4")
    return np.ascontiguousarray(bits.transpose(1, 2, 0))


def starts(levels: Levels, where: Window, size: tuple[int, int]) -> tuple[Array, Array, Array]:
    """Sums before anything differs, by the taps that are real: int32 [classes, M].

    Then the class of each row, and what each column adds to it. Padding has the bit 0 and so
    counts as -1; what it must not have added is given back.
    """
    found = []
    for axis, count in enumerate(size):
        place = np.arange(where.out[axis])[:, None] * where.strides[axis] - where.begins[axis]
        taps = place + np.arange(where.kernel[axis]) * where.dilations[axis]
        found.append(np.unique((taps >= 0) & (taps < count), axis=0, return_inverse=True))
    (by_row, rows), (by_column, columns) = found
    signs = levels.signs.astype(np.int64)
    real = by_row[:, None, :, None] & by_column[None, :, None, :]
    outside = np.einsum("rchw,mhw->rcm", ~real, signs.sum(axis=1))
    sums = (np.abs(signs).sum(axis=(1, 2, 3)) + outside).astype(np.int32)
    first = (rows.reshape(-1) * len(by_column)).astype(np.int32)
    return sums.reshape(-1, len(signs)), first, columns.reshape(-1).astype(np.int32)
