"""Outputs that nobody reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import onnx_ir as ir

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import with_outputs


@dataclass(frozen=True)
class DropUnusedOutputs(RewriteRule):
    """Engines need not compute what the node leaves out.

    Given:  y, h, c = LSTM(x, ...)   mask of Dropout, outputs of If   of which some are not used
    Result: the node without them, where the operator says that they are optional
    """

    name: ClassVar[str] = "drop-unused-outputs"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """Some output is used, another is not."""
        used = [_is_used(o) for o in node.outputs]
        named = [bool(o.name) for o in node.outputs]
        return any(used) and any(n and not u for n, u in zip(named, used, strict=True))

    def check(self, node: ir.Node) -> str | None:
        """The unused ones are optional."""
        if is_op(node, "If") or any(_droppable(node)):
            return None
        return "its outputs are not optional"

    def rewrite(self, node: ir.Node) -> None:
        """An absent output has no name; those at the end go."""
        if is_op(node, "If"):
            _narrow_if(node)
            return
        for output, drop in zip(node.outputs, _droppable(node), strict=True):
            if drop:
                output.name, output.type, output.shape = "", None, None
        count = max(i for i, o in enumerate(node.outputs) if o.name) + 1
        node.resize_outputs(count)


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _droppable(node: ir.Node) -> list[bool]:
    optional = _optional(node.op_type, node.domain)
    return [
        bool(o.name) and not _is_used(o) and (i in optional) for i, o in enumerate(node.outputs)
    ]


@cache
def _optional(op_type: str, domain: str) -> frozenset[int]:
    """Positions of the outputs that the standard lets a node leave out."""
    import onnx.defs

    if not onnx.defs.has(op_type, "" if domain == "ai.onnx" else domain):
        return frozenset()
    outputs = onnx.defs.get_schema(op_type).outputs
    kind = onnx.defs.OpSchema.FormalParameterOption.Optional
    return frozenset(i for i, o in enumerate(outputs) if o.option == kind)


def _narrow_if(node: ir.Node) -> None:
    """The branches compute less; nodes that only served the output are dead from now on."""
    kept = [i for i, o in enumerate(node.outputs) if _is_used(o)]
    branches = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    for branch in branches:
        outputs = [branch.outputs[i] for i in kept]
        branch.outputs.clear()
        branch.outputs.extend(outputs)
    with_outputs(node, node.inputs, kept)
