"""A sequence of equal pieces that are taken out by number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import add_initializer, fresh_name, replace_value
from passes.match import argument, dims, ints

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class SequenceToSplit(RewriteRule):
    """Tensors instead of a sequence, which few engines run well.

    Given:  s = SplitToSequence(x, 64)   a = SequenceAt(s, 0)   b = SequenceAt(s, 1)
    Result: a, b = Split(x, [64, 64])
    """

    name: ClassVar[str] = "sequence-to-split"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """Any SplitToSequence."""
        return is_op(node, "SplitToSequence")

    def check(self, node: ir.Node) -> str | None:
        """Known pieces, each taken by a constant number in the same graph."""
        sizes = _sizes(node)
        if sizes is None:
            return "the sizes of the pieces are not known"
        sequence = node.outputs[0]
        if sequence.is_graph_output():
            return f"{sequence.name} is a graph output"
        for user, _ in sequence.uses():
            index = ints(argument(user, 1)) if is_op(user, "SequenceAt") else None
            if index is None or user.graph is not node.graph or user.outputs[0].is_graph_output():
                return "the sequence is used as a whole, or a piece is a graph output"
            if not -len(sizes) <= index[0] < len(sizes):
                return "a piece is taken that does not exist"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """One Split; its outputs take the place of the pieces."""
        graph, sizes = node.graph, _sizes(node)
        assert graph is not None
        assert sizes is not None
        sequence = node.outputs[0]
        split = add_initializer(graph, f"{sequence.name}_sizes", np.array(sizes, np.int64))
        axis = node.attributes.get_int("axis", 0)
        new = ir.node(
            "Split", [node.inputs[0], split], {"axis": axis}, num_outputs=len(sizes), name=node.name
        )
        graph.insert_before(node, new)
        for piece in new.outputs:
            piece.name = fresh_name(graph, f"{sequence.name}_piece")
        for user in list(_users(sequence)):
            index = ints(user.inputs[1])
            assert index is not None
            piece = new.outputs[index[0]]
            piece.type, piece.shape = user.outputs[0].type, user.outputs[0].shape
            replace_value(user.outputs[0], piece)
            graph.remove(user, safe=True)
        graph.remove(node, safe=True)


def _users(sequence: ir.Value) -> Iterator[ir.Node]:
    return iter(dict.fromkeys(user for user, _ in sequence.uses()))


def _sizes(node: ir.Node) -> list[int] | None:
    """A number means pieces of that size, the last may be smaller; a vector names all sizes."""
    split, known = argument(node, 1), dims(node.inputs[0])
    given = ints(split)
    axis = node.attributes.get_int("axis", 0)
    if split is None or split.shape is None or given is None or known is None:
        return None
    total = known[axis]
    if len(split.shape) == 1:
        return given
    if not isinstance(total, int) or given[0] <= 0:
        return None
    return [min(given[0], total - start) for start in range(0, total, given[0])]
