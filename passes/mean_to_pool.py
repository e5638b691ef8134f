"""Mean over all spatial axes as the pooling operator that engines have integer kernels for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.graph import constant, fresh_name, take_description

IMAGE_RANK = 4


@dataclass(frozen=True)
class MeanToPool(RewriteRule):
    """Not in the default pipeline: it can add a node. Quantisation runs it.

    Given:  y = ReduceMean<keepdims>(x, axes)   x: [N, C, H, W], axes: 2 and 3
    Result: y = GlobalAveragePool(x), and without keepdims y = Flatten(GlobalAveragePool(x))
    """

    name: ClassVar[str] = "mean-to-pool"

    def match(self, node: ir.Node) -> bool:
        """A ReduceMean with axes."""
        return is_op(node, "ReduceMean") and len(node.inputs) > 1

    def check(self, node: ir.Node) -> str | None:
        """Exactly the spatial axes of an image."""
        value, axes = node.inputs[0], constant(node.inputs[1])
        if value is None or value.shape is None or len(value.shape) != IMAGE_RANK:
            return "its input is not known to have four axes"
        if axes is None or sorted(int(a) % IMAGE_RANK for a in axes) != [2, 3]:
            return "its axes are not the two spatial ones"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Replace the node; the pool takes over its name."""
        graph, value, old = node.graph, node.inputs[0], node.outputs[0]
        assert graph is not None
        assert value is not None
        pool = ir.node("GlobalAveragePool", [value], name=node.name)
        last = pool
        graph.insert_before(node, pool)
        if not node.attributes.get_int("keepdims", 1):
            pooled = pool.outputs[0]
            pooled.name, pooled.type = fresh_name(graph, f"{old.name}_pooled"), old.type
            last = ir.node("Flatten", [pooled], name=fresh_name(graph, f"{node.name}_flatten"))
            graph.insert_before(node, last)
        new = last.outputs[0]
        take_description(new, old)
        old.replace_all_uses_with(new, replace_graph_outputs=old.is_graph_output())
        graph.remove(node, safe=True)
        new.name, old.name = old.name, None
