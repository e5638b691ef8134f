"""Attention of ONNX Runtime: projections, masks, a past, all in one node."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from infer_tool.importers.contrib.builder import Builder, Unexpressible
from infer_tool.importers.contrib.quantised_dynamic import integer_product

if TYPE_CHECKING:
    import onnx_ir as ir

    Outputs = list[ir.Value | None]

FILTER = -10000.0  # added where a mask is 0
LEAST = float(np.finfo(np.float32).min)
INT64, BOOL = 7, 9
BATCHED, PER_QUERY = 2, 3  # ranks of masks: [batch, keys] and [batch, queries, keys]
LENGTHS = 1  # the rank of a mask that says how many keys count
SPLIT = 4  # the rank of a value that is in heads already


def attention(b: Builder, _: ir.Node) -> Outputs:
    """Query, key and value from one product; past and present are [2, batch, heads, keys, size]."""
    b.forbid(6)
    total = b.op("MatMul", b.required(0), b.required(1))
    bias = b.argument(2)
    total = total if bias is None else b.op("Add", total, bias)
    return attended_with_past(b, total, b.required(0), (3, 4, 5))


def quantised_attention(b: Builder, _: ir.Node) -> Outputs:
    """The product of 8-bit integers, the rest as above."""
    bias = b.required(2)
    scale = b.op("Mul", b.required(3), b.required(4))
    total = integer_product(
        b, b.required(0), b.required(1), scale, b.argument(6), b.argument(7), bias
    )
    return attended_with_past(b, total, bias, (5, 8, None))


def attended_with_past(
    b: Builder, total: ir.Value, like: ir.Value, at: tuple[int, int, int | None]
) -> Outputs:
    """From all three projections side by side; `at` tells where mask, past and bias are."""
    if b.attribute("do_rotary", 0):
        raise Unexpressible
    q, k, v = split_heads(b, total, b.required(1))
    past = b.argument(at[1])
    if past is not None:
        k = b.op("Concat", b.op("Gather", past, b.const(np.int64(0)), axis=0), k, axis=2)
        v = b.op("Concat", b.op("Gather", past, b.const(np.int64(1)), axis=0), v, axis=2)
    present = None
    if b.wants(1):
        pair = b.op("Unsqueeze", k, b.ints(0)), b.op("Unsqueeze", v, b.ints(0))
        present = b.op("Concat", *pair, axis=0)
    added = None if at[2] is None else b.argument(at[2])
    return [merged(b, _attended(b, (q, k, v), like, b.argument(at[0]), added)), present]


def split_heads(
    b: Builder, total: ir.Value, weight: ir.Value
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """[batch, length, all columns of the weight] as three of [batch, heads, length, size]."""
    width = weight.shape[-1] if weight.shape is not None else None
    sizes = list(b.attribute("qkv_hidden_sizes", []))
    if not sizes:
        if not isinstance(width, int):
            raise Unexpressible
        sizes = [width // 3] * 3
    first = b.op("Split", total, b.ints(*sizes), outputs=3, axis=2)
    node = first.producer()
    assert node is not None
    q, k, v = (heads(b, part, size) for part, size in zip(node.outputs, sizes, strict=True))
    return q, k, v


def heads(b: Builder, x: ir.Value, width: int) -> ir.Value:
    """[batch, length, width] to [batch, heads, length, size]."""
    number = b.attribute("num_heads", 0)
    if not number or width % number:
        raise Unexpressible
    split = b.op("Reshape", x, b.ints(0, 0, number, width // number))
    return b.op("Transpose", split, perm=[0, 2, 1, 3])


def merged(b: Builder, y: ir.Value) -> ir.Value:
    """And back."""
    return b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))


def _attended(
    b: Builder,
    qkv: tuple[ir.Value, ir.Value, ir.Value],
    like: ir.Value,
    mask: ir.Value | None,
    bias: ir.Value | None,
) -> ir.Value:
    """softmax(scale q k^T + bias + mask) v; constants have the type of `like`."""
    q, k, v = qkv
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    scale = b.attribute("scale", 0.0) or 1 / sqrt(_head_size(b, q))
    scores = b.op("Mul", scores, b.scalar(scale, like))
    if bias is not None:
        scores = b.op("Add", scores, bias)
    if mask is not None:
        scores = b.op("Add", scores, _mask(b, mask, scores, like))
    if b.attribute("unidirectional", 0):
        scores = _causal(b, scores, like)
    return b.op("MatMul", b.op("Softmax", scores, axis=-1), v)


def _head_size(b: Builder, q: ir.Value) -> int:
    node = q.producer()
    while node is not None and node.op_type != "Reshape":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None:
        raise Unexpressible
    return int(b.constant(node.inputs[1])[-1])


def _mask(b: Builder, mask: ir.Value, scores: ir.Value, like: ir.Value) -> ir.Value:
    """What is added to the scores: 0 where the mask is not, a large negative number elsewhere."""
    rank = b.rank(mask)
    if rank == LENGTHS:
        keys = b.op("Range", b.const(np.int64(0)), _size(b, scores, 3), b.const(np.int64(1)))
        lengths = b.op("Unsqueeze", b.op("Cast", mask, to=INT64), b.ints(1))
        seen = b.op("Less", keys, lengths)
    elif rank in (BATCHED, PER_QUERY):
        seen = b.op("Cast", mask, to=BOOL)
    else:
        raise Unexpressible
    axes = (1,) if rank == PER_QUERY else (1, 2)
    least = b.scalar(b.attribute("mask_filter_value", FILTER), like)
    return b.op("Unsqueeze", b.op("Where", seen, b.scalar(0.0, like), least), b.ints(*axes))


def _size(b: Builder, value: ir.Value, axis: int) -> ir.Value:
    return b.op("Squeeze", b.op("Shape", value, start=axis, end=axis + 1), b.ints(0))


def _causal(b: Builder, scores: ir.Value, like: ir.Value) -> ir.Value:
    """A query sees the keys up to itself; those of the past come first."""
    zero, one = b.const(np.int64(0)), b.const(np.int64(1))
    queries, keys = _size(b, scores, 2), _size(b, scores, 3)
    rows = b.op("Add", b.op("Range", zero, queries, one), b.op("Sub", keys, queries))
    columns = b.op("Range", zero, keys, one)
    seen = b.op("LessOrEqual", columns, b.op("Unsqueeze", rows, b.ints(1)))
    return b.op("Where", seen, scores, b.scalar(LEAST, like))


def multi_head(b: Builder, _: ir.Node) -> Outputs:
    """Query, key and value are three inputs; the past, where there is one, is in heads."""
    b.forbid(8, 9)
    width = _width(b, b.required(0))
    parts = [b.required(0), b.required(1), b.required(2)]
    biases = _biases(b, width)
    q, k, v = (
        value if b.rank(value) == SPLIT else heads(b, _plus(b, value, bias), _width(b, value))
        for value, bias in zip(parts, biases, strict=True)
    )
    if b.argument(6) is not None:
        k = b.op("Concat", b.required(6), k, axis=2)
        v = b.op("Concat", b.required(7), v, axis=2)
    y = _attended(b, (q, k, v), parts[0], b.argument(4), b.argument(5))
    return [merged(b, y), k, v]


def _width(b: Builder, value: ir.Value) -> int:
    if b.rank(value) == SPLIT:
        return 0
    size = value.shape[-1] if value.shape is not None else None
    if b.rank(value) != PER_QUERY or not isinstance(size, int):
        raise Unexpressible
    return size


def _biases(b: Builder, width: int) -> list[ir.Value | None]:
    """One vector for the three of them."""
    bias = b.argument(3)
    if bias is None:
        return [None, None, None]
    if bias.shape is None or not isinstance(bias.shape[0], int):
        raise Unexpressible
    last = bias.shape[0] - 2 * width
    first = b.op("Split", bias, b.ints(width, width, last), outputs=3, axis=0)
    node = first.producer()
    assert node is not None
    return list(node.outputs)


def _plus(b: Builder, value: ir.Value, bias: ir.Value | None) -> ir.Value:
    return value if bias is None else b.op("Add", value, bias)


RULES = {
    "Attention": attention,
    "MultiHeadAttention": multi_head,
    "QAttention": quantised_attention,
}
