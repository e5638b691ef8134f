"""A Transpose between a Reshape that joins the first axes and one that parts them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op
from passes.match import dims, inner, producer, replace_node
from passes.merge_transposes import permutation
from passes.permutations import turned_by

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class UnflattenTransposes(RewriteRule):
    """The joined axes were not moved.

    Given:  a = Reshape(x, [-1, T, 16])  b = Transpose<0, 2, 1>(a)  y = Reshape(b, [N, 4, 16, T])
    Result: y = Transpose<0, 1, 3, 2>(x)   x: [N, 4, T, 16]
    """

    name: ClassVar[str] = "unflatten-transposes"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Reshape of a Transpose of a Reshape."""
        turn = producer(node.inputs[0], "Transpose") if is_op(node, "Reshape") else None
        return turn is not None and producer(turn.inputs[0], "Reshape") is not None

    def check(self, node: ir.Node) -> str | None:
        """The first axes come back as they were."""
        if inner(node.inputs[0], node, "Transpose") is None:
            return "others read the Transpose"
        return None if _direct(node) is not None else "it does not part what was joined"

    def rewrite(self, node: ir.Node) -> None:
        """Turn the axes of the source."""
        direct = _direct(node)
        assert direct is not None
        source, perm = direct
        replace_node(node, "Transpose", [source], {"perm": perm})


def _direct(node: ir.Node) -> tuple[ir.Value, list[int]] | None:
    """What the first Reshape reads, and the permutation of all its axes."""
    turn = producer(node.inputs[0], "Transpose")
    assert turn is not None
    join, perm = producer(turn.inputs[0], "Reshape"), permutation(turn)
    if join is None or perm is None or perm[0] != 0 or join.inputs[0] is None:
        return None
    before, joined = dims(join.inputs[0]), dims(turn.inputs[0])
    after = dims(node.outputs[0])
    if before is None or joined is None or after is None or len(before) != len(after):
        return None
    first = len(before) - len(joined) + 1  # so many axes were joined
    whole = [*range(first), *(axis - 1 + first for axis in perm[1:])]
    if first < 1 or None in before or before[first:] != joined[1:]:
        return None
    return (join.inputs[0], whole) if tuple(turned_by(before, whole)) == after else None
