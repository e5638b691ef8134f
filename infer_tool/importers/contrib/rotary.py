"""Rotary position embeddings (Su et al. 2021, RoFormer) with tables of cosines and sines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_tool.importers.contrib.builder import Builder, Unexpressible

if TYPE_CHECKING:
    import onnx_ir as ir

    Outputs = list[ir.Value | None]

IN_HEADS = 4  # the rank of [batch, heads, length, size]
OFFSET = 1  # the rank of a position that counts for the first element of every sequence


def rotary(b: Builder, _: ir.Node) -> Outputs:
    """Turn pairs of elements by the angle of their position; what is left over stays."""
    x = b.required(0)
    if b.attribute("scale", 1.0) != 1 or b.attribute("is_packed_batching", 0):
        raise Unexpressible
    half, size = _sizes(b, x)
    in_heads = b.rank(x) == IN_HEADS
    rows = (
        b.op("Transpose", x, perm=[0, 2, 1, 3]) if in_heads
        else b.op("Reshape", x, b.ints(0, 0, -1, size))
    )  # fmt: skip
    places = _positions(b, rows)
    cos, sin = (b.op("Unsqueeze", b.op("Gather", b.required(i), places), b.ints(2)) for i in (2, 3))
    turned = _turned(b, rows, half, (cos, sin))
    if size > 2 * half:
        turned = b.op("Concat", turned, _slice(b, rows, 2 * half, size), axis=-1)
    if in_heads:
        return [b.op("Transpose", turned, perm=[0, 2, 1, 3])]
    return [b.op("Reshape", turned, b.ints(0, 0, -1))]


def _sizes(b: Builder, x: ir.Value) -> tuple[int, int]:
    """Half of what turns, and the whole head."""
    table, width = b.required(2).shape, x.shape[-1] if x.shape is not None else None
    half = table[-1] if table is not None else None
    if not isinstance(half, int) or not isinstance(width, int):
        raise Unexpressible
    if b.rank(x) == IN_HEADS:
        return half, width
    heads = b.attribute("num_heads", 0)
    return half, width // heads if heads else 2 * half


def _positions(b: Builder, rows: ir.Value) -> ir.Value:
    places = b.required(1)
    if b.rank(places) != OFFSET:
        return places
    length = b.op("Squeeze", b.op("Shape", rows, start=1, end=2), b.ints(0))
    steps = b.op("Range", b.const(np.int64(0)), length, b.const(np.int64(1)))
    return b.op("Unsqueeze", b.op("Add", steps, places), b.ints(0))


def _turned(b: Builder, rows: ir.Value, half: int, angle: tuple[ir.Value, ir.Value]) -> ir.Value:
    """(a cos - c sin, c cos + a sin) for the pairs (a, c): halves, or neighbours."""
    neighbours = bool(b.attribute("interleaved", 0))
    if neighbours:
        pairs = b.op("Reshape", _slice(b, rows, 0, 2 * half), b.ints(0, 0, 0, half, 2))
        a, c = (b.op("Gather", pairs, b.const(np.int64(i)), axis=-1) for i in (0, 1))
    else:
        a, c = _slice(b, rows, 0, half), _slice(b, rows, half, 2 * half)
    cos, sin = angle
    first = b.op("Sub", b.op("Mul", a, cos), b.op("Mul", c, sin))
    second = b.op("Add", b.op("Mul", c, cos), b.op("Mul", a, sin))
    if not neighbours:
        return b.op("Concat", first, second, axis=-1)
    ends = (b.op("Unsqueeze", v, b.ints(-1)) for v in (first, second))
    return b.op("Reshape", b.op("Concat", *ends, axis=-1), b.ints(0, 0, 0, 2 * half))


def _slice(b: Builder, value: ir.Value, start: int, end: int) -> ir.Value:
    return b.op("Slice", value, b.ints(start), b.ints(end), b.ints(-1))


RULES = {"RotaryEmbedding": rotary}
