"""Reshape, Squeeze, Unsqueeze and Flatten after each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op
from passes.fold_reshapes import constant_target, to_reshape
from passes.match import Dims, argument, dims, ints, producer
from passes.merge_transposes import permutation
from passes.permutations import moves_ones
from passes.traits import is_reshaping

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class MergeReshapes(RewriteRule):
    """The last shape is the only one that counts.

    Given:  a = Reshape | Squeeze | Unsqueeze | Flatten (x)   y = one of these (a)
    Result: y = Reshape(x, shape)   with at most one dimension that is neither known nor kept
    """

    name: ClassVar[str] = "merge-reshapes"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """Two nodes that keep all elements in their order."""
        before = producer(node.inputs[0], *_BEFORE) if node.inputs else None
        return keeps_order(node) and before is not None and keeps_order(before)

    def check(self, node: ir.Node) -> str | None:
        """The first one goes, and the last shape can be written down."""
        middle = node.inputs[0]
        assert middle is not None
        first = producer(middle, *_BEFORE)
        if not (first is not None and _squeezes_ones(first) and _squeezes_ones(node)):
            return "an axis that is squeezed may be longer than 1, which must stay an error"
        if middle.is_graph_output() or not all(keeps_order(user) for user, _ in middle.uses()):
            return f"{middle.name} is needed for itself"
        return None if _target(node) is not None else "the shape is not known well enough"

    def rewrite(self, node: ir.Node) -> None:
        """Reshape the first input."""
        first, target = producer(node.inputs[0], *_BEFORE), _target(node)
        assert first is not None
        assert target is not None
        to_reshape(node, first.inputs[0], target)


_BEFORE = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose")


def keeps_order(node: ir.Node) -> bool:
    """Does it only change the shape? A Transpose may do so too: by moving axes of size 1."""
    if not is_op(node, "Transpose"):
        return is_reshaping(node)
    sizes, perm = dims(node.inputs[0]), permutation(node)
    return sizes is not None and perm is not None and moves_ones(sizes, perm)


def _squeezes_ones(node: ir.Node) -> bool:
    """Does it squeeze only axes that are known to have size 1?"""
    if not is_op(node, "Squeeze"):
        return True
    sizes, axes = dims(node.inputs[0]), ints(argument(node, 1))
    return axes is None or (sizes is not None and all(sizes[a] == 1 for a in axes))


def _target(node: ir.Node) -> list[int] | None:
    middle = node.inputs[0]
    first = producer(middle, *_BEFORE)
    assert first is not None
    source = dims(first.inputs[0])
    if is_op(node, "Reshape") and (wanted := ints(node.inputs[1])) is not None:
        zero = node.attributes.get_int("allowzero", 0) and 0 in wanted
        target = None if zero else _resolve(wanted, dims(middle), source)
        if target is not None:
            return target
    after = dims(node.outputs[0])
    return None if after is None else constant_target(source, after)


def _resolve(wanted: list[int], middle: Dims | None, source: Dims | None) -> list[int] | None:
    """A 0 copies from the middle shape: it becomes a number, or a 0 that copies the same."""
    target: list[int] = []
    for axis, size in enumerate(wanted):
        known = middle[axis] if size == 0 and middle is not None and axis < len(middle) else None
        if size != 0:
            target.append(size)
        elif isinstance(known, int):
            target.append(known)
        elif known is not None and source is not None and source[axis : axis + 1] == (known,):
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None
