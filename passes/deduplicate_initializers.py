"""Equal constants are stored once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import CLEANING, Outcome, Pass

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class DeduplicateInitializers(Pass):
    """One initialiser for each value.

    Given:  initialisers a and b of the same type, shape and bytes
    Result: a alone; an initialiser that is a graph input or output stays
    """

    name: ClassVar[str] = "deduplicate-initializers"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Per graph: a subgraph does not reach into another one."""
        return Outcome(sum(_deduplicate(graph) for graph in model.graphs()))


def _deduplicate(graph: ir.Graph) -> int:
    seen: dict[tuple[object, ...], ir.Value] = {}
    changes = 0
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output():
            continue
        if tensor.dtype.name == "STRING":
            continue
        digest = hashlib.sha256(tensor.tobytes()).digest()
        key = (tensor.dtype, tuple(tensor.shape), digest)
        first = seen.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            del graph.initializers[name]
            changes += 1
    return changes
