"""Equal constants are stored once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from passes.base import CLEANING, Outcome, Pass

if TYPE_CHECKING:
    import onnx_ir as ir

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
SAMPLE = 512  # bytes


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
    seen: dict[tuple[object, ...], list[ir.Value]] = {}
    changes = 0
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output():
            continue
        if tensor.dtype.name == "STRING":
            continue
        data = _bytes(tensor)
        alike = seen.setdefault((tensor.dtype, tuple(tensor.shape), _sample(data)), [])
        first = next((v for v in alike if _holds(v, data)), None)
        if first is None:
            alike.append(value)
        else:
            value.replace_all_uses_with(first)
            del graph.initializers[name]
            changes += 1
    return changes


def _bytes(tensor: ir.TensorProtocol) -> Bytes:
    """The data where it lies: a large weight is neither copied nor read as a whole."""
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)


def _sample(data: Bytes) -> bytes:
    """Enough to tell most tensors apart: start, middle and end."""
    if data.size <= 3 * SAMPLE:
        return data.tobytes()
    middle = data.size // 2
    return b"".join(data[s : s + SAMPLE].tobytes() for s in (0, middle, data.size - SAMPLE))


def _holds(value: ir.Value, data: Bytes) -> bool:
    assert value.const_value is not None
    return np.array_equal(_bytes(value.const_value), data)
