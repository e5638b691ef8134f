"""Attention that parts and joins its heads by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.match import dims, inner, only_user, producer, replace_node
from passes.merge_transposes import permutation

HEADS = [0, 2, 1, 3]  # [batch, positions, heads, size] to [batch, heads, positions, size]


@dataclass(frozen=True)
class FuseAttentionHeads(RewriteRule):
    """Eight nodes that only move data go; ONNX Runtime then reads the heads where they lie.

    Given:  q = Transpose<0, 2, 1, 3>(Reshape(x, [N, T, heads, size])), k and v likewise
            a = Attention(q, k, v)   y = Reshape(Transpose<0, 2, 1, 3>(a), [N, T, heads * size])
    Result: y = Attention<q_num_heads, kv_num_heads>(x, ...)
    """

    name: ClassVar[str] = "fuse-attention-heads"
    since: ClassVar[int] = 23

    def match(self, node: ir.Node) -> bool:
        """Attention on values of four axes, without a cache of the past."""
        first = dims(node.inputs[0]) if is_op(node, "Attention") else None
        return first is not None and len(first) == len(HEADS)

    def check(self, node: ir.Node) -> str | None:
        """All of them are parted and joined in the same way."""
        if len(node.inputs) > 4 or len(node.outputs) > 1:
            return "it keeps keys and values of the past"
        if any(_parted(value) is None for value in node.inputs[:3]):
            return "its inputs are not parted into heads right before it"
        return None if _joining(node) is not None else "its heads are not joined right behind it"

    def rewrite(self, node: ir.Node) -> None:
        """The last Reshape becomes the Attention."""
        join, parted = _joining(node), [_parted(value) for value in node.inputs[:3]]
        assert join is not None
        found = [part for part in parted if part is not None]
        attributes = dict(node.attributes)
        inputs = [*(value for value, _ in found), *node.inputs[3:]]
        new = replace_node(join, "Attention", inputs)
        new.attributes.update(attributes)
        for name, (_, heads) in zip(("q_num_heads", "kv_num_heads"), found, strict=False):
            new.attributes[name] = ir.AttrInt64(name, heads)


def _parted(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """The value of three axes behind one of four, and the number of its heads."""
    turn = producer(value, "Transpose")
    part = (
        None if turn is None or permutation(turn) != HEADS else producer(turn.inputs[0], "Reshape")
    )
    if part is None or part.inputs[0] is None:
        return None
    before, after = dims(part.inputs[0]), dims(part.outputs[0])
    if before is None or after is None or len(before) != 3 or None in before[:2]:
        return None
    heads, size = after[2:]
    if not isinstance(heads, int) or not isinstance(size, int):
        return None
    fits = before[:2] == after[:2] and before[2] == heads * size
    return (part.inputs[0], heads) if fits else None


def _joining(node: ir.Node) -> ir.Node | None:
    """The Reshape to three axes that alone reads the result, turned back."""
    turn = only_user(node.outputs[0])
    if turn is None or not is_op(turn, "Transpose") or permutation(turn) != HEADS:
        return None
    join = only_user(turn.outputs[0])
    if (
        join is None
        or not is_op(join, "Reshape")
        or inner(join.inputs[0], join, "Transpose") is None
    ):
        return None
    before, after = dims(turn.outputs[0]), dims(join.outputs[0])
    if before is None or after is None or len(after) != 3 or None in before[:2]:
        return None
    heads, size = before[2:]
    if not isinstance(heads, int) or not isinstance(size, int):
        return None
    return join if after == (*before[:2], heads * size) else None
