"""Reshapes whose computed shape can be written down with 0 and -1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import CLEANING, Outcome, Pass, Refusal, all_nodes, is_op
from passes.graph import add_initializer, constant, forget_names
from passes.match import Dims, dims, replace_node
from passes.symbolic import elements_of, shape_elements

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FoldReshapes(Pass):
    """At most one dynamic dimension is new; others stay where they are.

    Given:  y = Reshape(x, Concat(Shape(x)[0:1], Shape(x)[1:2], 12, 32))   x: [N, T, 384]
    Result: y = Reshape(x, [0, 0, 12, 32])
    """

    name: ClassVar[str] = "fold-reshapes"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """One walk finds the elements of all shapes."""
        found = shape_elements(model)
        forget_names(model)
        changes, refusals = 0, []
        for node in list(all_nodes(model)):
            if not is_op(node, "Reshape") or constant(node.inputs[1]) is not None:
                continue
            target = _target(node, elements_of(node.inputs[1], found))
            if target is None:
                reason = "more than one dimension of the new shape is unknown"
                refusals.append(Refusal(node.name or "?", node.op_type, reason))
                continue
            to_reshape(node, node.inputs[0], target)
            changes += 1
        return Outcome(changes, tuple(refusals))


def _target(node: ir.Node, elements: Dims | None) -> list[int] | None:
    """From the elements of the shape; else from the known shape of the result."""
    source, after = dims(node.inputs[0]), dims(node.outputs[0])
    copies = node.attributes.get_int("allowzero", 0) == 0
    if elements is not None and (copies or 0 not in elements):
        target = _literal(source, elements)
        if target is not None:
            return target
    return None if after is None else constant_target(source, after)


def _literal(source: Dims | None, elements: Dims) -> list[int] | None:
    """Numbers stay, and mean what they meant; names become 0 or -1."""
    target = [e if isinstance(e, int) else _copy(source, i, e) for i, e in enumerate(elements)]
    return target if target.count(-1) <= 1 else None


def _copy(source: Dims | None, axis: int, name: str | None) -> int:
    same = source is not None and axis < len(source) and name is not None and source[axis] == name
    return 0 if same else -1


def constant_target(source: Dims | None, wanted: Dims) -> list[int] | None:
    """What to write into a Reshape from `source` to `wanted`; None when it cannot be said."""
    return None if 0 in wanted else _literal(source, wanted)


def to_reshape(node: ir.Node, value: ir.Value | None, target: list[int]) -> None:
    """A Reshape of `value` to a constant shape in the place of `node`."""
    shape = add_initializer(node.graph, f"{node.outputs[0].name}_shape", np.array(target, np.int64))
    replace_node(node, "Reshape", [value, shape])
