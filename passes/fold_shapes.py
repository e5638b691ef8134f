"""Shape arithmetic whose result is known although the shape is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import CLEANING, Outcome, Pass, Refusal, all_nodes
from passes.graph import become_constant
from passes.match import remove_with_unused
from passes.symbolic import is_shape_like, shape_elements

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FoldShapes(Pass):
    """Compute what depends on static dimensions only.

    Given:  x: [N, 3, 5]   y = Gather(Shape(x), 1)
    Result: an initialiser y = 3
    """

    name: ClassVar[str] = "fold-shapes"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """One walk finds all elements; values without an unknown one become constants."""
        found = shape_elements(model)
        changes, refusals = 0, []
        for node in list(all_nodes(model)):
            elements = found.get(id(node.outputs[0])) if node.outputs else None
            if node.graph is None or not elements:
                continue
            known = [e for e in elements if isinstance(e, int)]
            if len(known) < len(elements):
                continue
            if reason := _refuse(node):
                refusals.append(Refusal(node.name or "?", node.op_type, reason))
                continue
            _fold(node, known)
            changes += 1
        return Outcome(changes, tuple(refusals))


def _refuse(node: ir.Node) -> str | None:
    value = node.outputs[0]
    if value.is_graph_output():
        return f"{value.name} is a graph output"
    if not is_shape_like(value) or value.shape is None or len(value.shape) > 1:
        return f"{value.name} is no integer number or vector"
    return None


def _fold(node: ir.Node, known: list[int]) -> None:
    value = node.outputs[0]
    assert value.dtype is not None
    assert value.shape is not None
    shape = (len(known),) if len(value.shape) else ()
    become_constant(value, np.array(known, value.dtype.numpy()).reshape(shape))
    remove_with_unused(node)
