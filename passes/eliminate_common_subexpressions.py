"""The same computation is done once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from passes.base import CLEANING, Outcome, Pass
from passes.fold_constants import RANDOM
from passes.graph import remove_node


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """One node for each operator, attributes and inputs.

    Given:  a = Op<k>(x)  b = Op<k>(x)
    Result: a alone; a node that computes a graph output stays, as outputs keep their names
    """

    name: ClassVar[str] = "eliminate-common-subexpressions"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Per graph, in order: equal inputs were merged before their users are looked at."""
        return Outcome(sum(_merge(graph) for graph in model.graphs()))


def _merge(graph: ir.Graph) -> int:
    seen: dict[Any, ir.Node] = {}
    changes = 0
    for node in list(graph):
        key = _key(node)
        if key is None:
            continue
        first = seen.setdefault(key, node)
        if first is node or any(o.is_graph_output() for o in node.outputs):
            continue
        for old, new in zip(node.outputs, first.outputs, strict=True):
            old.replace_all_uses_with(new)
        remove_node(node)
        changes += 1
    return changes


def _key(node: ir.Node) -> Any | None:
    """What makes two nodes equal; None for one that never equals another."""
    if node.op_type in RANDOM:
        return None
    attributes = []
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            return None
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            value = (value.dtype, tuple(value.shape), value.tobytes())
        attributes.append((name, tuple(value) if isinstance(value, list) else value))
    inputs = tuple(None if v is None else id(v) for v in node.inputs)
    used = tuple(bool(o.name) for o in node.outputs)
    return (node.domain, node.op_type, node.overload, inputs, tuple(attributes), used)
