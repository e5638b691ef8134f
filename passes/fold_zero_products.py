"""Integers times zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import RewriteRule, is_op
from passes.graph import MAX_GROWTH_BYTES, become_constant, constant
from passes.match import remove_with_unused

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FoldZeroProducts(RewriteRule):
    """Nothing is left of an integer; a float could be infinite or no number.

    Given:  y = Mul(n, 0)   n: int64[2]
    Result: an initialiser y = [0, 0]
    """

    name: ClassVar[str] = "fold-zero-products"

    def match(self, node: ir.Node) -> bool:
        """A Mul of integers by zero."""
        kind = node.outputs[0].dtype if is_op(node, "Mul") else None
        if kind is None or not kind.is_integer():
            return False
        arrays = [constant(v) for v in node.inputs]
        return any(a is not None and a.size > 0 and not a.any() for a in arrays)

    def check(self, node: ir.Node) -> str | None:
        """A small result of known shape that is no output."""
        value = node.outputs[0]
        if value.is_graph_output():
            return f"{value.name} is a graph output"
        if value.shape is None or not value.shape.is_static():
            return "its shape is not known"
        size = int(np.prod(value.shape.numpy()))
        return "the file would grow" if size * 8 > MAX_GROWTH_BYTES else None

    def rewrite(self, node: ir.Node) -> None:
        """A constant takes the users."""
        value = node.outputs[0]
        assert value.shape is not None
        assert value.dtype is not None
        become_constant(value, np.zeros(value.shape.numpy(), value.dtype.numpy()))
        remove_with_unused(node)
