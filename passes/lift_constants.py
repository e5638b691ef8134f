"""Constant nodes become initialisers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from infer_runtime.evaluate import run_node
from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import become_constant, remove_node, shared_reason

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class LiftConstants(RewriteRule):
    """One way to hold a constant, so that other passes need to know one.

    Given:  c = Constant<value>()
    Result: an initialiser c
    """

    name: ClassVar[str] = "lift-constants"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """Any Constant."""
        return is_op(node, "Constant")

    def check(self, node: ir.Node) -> str | None:
        """A graph output must keep its name and its producer; strings have no array form."""
        if node.outputs[0].is_graph_output():
            return shared_reason(node.outputs[0])
        if any(k in node.attributes for k in ("value_string", "value_strings", "sparse_value")):
            return "strings and sparse tensors stay where they are"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Move the value."""
        (array,) = run_node(node, [], 20)
        become_constant(node.outputs[0], np.asarray(array))
        remove_node(node)
