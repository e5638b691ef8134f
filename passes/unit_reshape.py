"""Reshapes that only add axes of size 1 or take them away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from passes.base import is_op
from passes.fold_reshapes import constant_target
from passes.match import dims
from passes.permutations import Perm, narrow, turned_by, widen

if TYPE_CHECKING:
    import onnx_ir as ir

    from passes.match import Dim, Dims


@dataclass(frozen=True)
class _Ones:
    """Axes of the input that go, and axes of the output that come."""

    gone: list[int]
    new: list[int]


def turn_reshape(node: ir.Node, perm: Perm, made: bool) -> tuple[Perm, Perm, list[Any]] | None:
    """How input and output are turned together, and the new axes or shape; None when they are not.

    `perm` is of the output when that is `made` turned, else of the input.
    """
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    ones = None if before is None or after is None else _compare(before, after)
    if ones is None or before is None or after is None:
        return None
    reads = widen(narrow(perm, ones.new), ones.gone) if made else perm
    gives = perm if made else widen(narrow(perm, ones.gone), ones.new)
    if is_op(node, "Squeeze"):
        return reads, gives, [reads.index(axis) for axis in ones.gone]
    if is_op(node, "Unsqueeze"):
        return reads, gives, sorted(gives.index(axis) for axis in ones.new)
    if not is_op(node, "Reshape") or node.attributes.get_int("allowzero", 0) != 0:
        return None
    target = constant_target(tuple(turned_by(before, reads)), tuple(turned_by(after, gives)))
    return None if target is None else (reads, gives, target)


def _compare(before: Dims, after: Dims) -> _Ones | None:
    """Walk along both; all sizes but 1 must be there in the same order."""
    gone, new, guesses = [], [], 0
    i = j = 0
    while i < len(before) or j < len(after):
        a, b = before[i : i + 1], after[j : j + 1]
        if a and b and _alike(a[0], b[0]):
            guesses += a != b or a[0] is None
            i, j = i + 1, j + 1
        elif a == (1,):
            gone.append(i)
            i += 1
        elif b == (1,):
            new.append(j)
            j += 1
        else:
            return None
    # One size that has no name, or another one, is the same where all others are.
    return _Ones(gone, new) if guesses <= 1 else None


def _alike(a: Dim, b: Dim) -> bool:
    return a == b or not (isinstance(a, int) or isinstance(b, int))
