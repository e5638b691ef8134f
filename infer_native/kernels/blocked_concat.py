"""Channels of several images one after the other, on NCHWc tensors of any type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_native.cwriter import loop
from infer_native.kernels import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.program import Layer


MOST = 4  # pieces of a block


@dataclass(frozen=True)
class Piece:
    """Channels of one block of an input that go side by side into one block of the output."""

    number: int
    block: int
    lane: int
    count: int
    to: int


def fits(channels: Sequence[int], lanes: int) -> bool:
    """Are a few copies enough for each block?"""
    return max(map(len, _pieces(channels, lanes)), default=MOST + 1) <= MOST


def concat(layer: Layer, channels: Sequence[int]) -> Code:
    """Block by block; whole blocks in one copy. The lanes behind the last channel are zero."""
    y = layer.output()
    samples, blocks, height, width, lanes = y.shape
    pixels, size = height * width, y.dtype.itemsize
    parts = []
    for block, pieces in enumerate(_pieces(channels, lanes)):
        target = f"y0 + (n * {blocks} + {block}) * {pixels * lanes}"
        sources = [
            f"x{p.number} + (n * {layer.input(p.number).shape[1]} + {p.block}) * {pixels * lanes}"
            for p in pieces
        ]
        if pieces[0].count == lanes:
            parts.append(f"memcpy({target}, {sources[0]}, {pixels * lanes * size});")
            continue
        head = [f"{y.ctype} *o = {target};"]
        head += [f"const {y.ctype} *p{k} = {s};" for k, s in enumerate(sources)]
        copies = [
            f"memcpy(o + i * {lanes} + {p.to}, p{k} + i * {lanes} + {p.lane}, {p.count * size});"
            for k, p in enumerate(pieces)
        ]
        end = pieces[-1].to + pieces[-1].count
        if end < lanes:
            copies.append(f"memset(o + i * {lanes} + {end}, 0, {(lanes - end) * size});")
        body = "\n".join([*head, loop("i", pixels, "\n".join(copies))])
        parts.append(f"{{\n{body}\n}}")
    return Code(loop("n", samples, "\n".join(parts)))


def _pieces(channels: Sequence[int], lanes: int) -> list[list[Piece]]:
    """What each block of the output is made of, from its first lane on."""
    found: list[list[Piece]] = [[] for _ in range(-(-sum(channels) // lanes))]
    at = 0
    for number, count in enumerate(channels):
        start = 0
        while start < count:
            size = min(lanes - start % lanes, lanes - at % lanes, count - start)
            piece = Piece(number, start // lanes, start % lanes, size, at % lanes)
            found[at // lanes].append(piece)
            start, at = start + size, at + size
    return found
