"""A Concat of Concats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, RewriteRule, is_op
from passes.match import inner, producer, rank, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FlattenConcats(RewriteRule):
    """All parts side by side.

    Given:  a = Concat<k>(x, y)   z = Concat<k>(a, w)
    Result: z = Concat<k>(x, y, w)
    """

    name: ClassVar[str] = "flatten-concats"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Concat with a Concat among its inputs."""
        return is_op(node, "Concat") and any(producer(v, "Concat") for v in node.inputs)

    def check(self, node: ir.Node) -> str | None:
        """Of the same axis, and read by nobody else."""
        if any(_parts(node, v) for v in node.inputs):
            return None
        return "the inner Concat joins another axis, or others read it"

    def rewrite(self, node: ir.Node) -> None:
        """Splice the parts in."""
        parts = [part for v in node.inputs for part in _parts(node, v) or [v]]
        replace_node(node, "Concat", parts, {"axis": node.attributes["axis"].as_int()})


def _parts(node: ir.Node, value: ir.Value | None) -> list[ir.Value | None]:
    """The inputs of an inner Concat that can be spliced in; else none."""
    before = inner(value, node, "Concat")
    if before is None or node.inputs.count(value) != 1 or _axis(before) != _axis(node):
        return []
    return list(before.inputs)


def _axis(node: ir.Node) -> int:
    axis, size = node.attributes["axis"].as_int(), rank(node.outputs[0])
    return axis % size if size else axis
