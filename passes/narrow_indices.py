"""Indices of 32 bits where 64 say the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import CLEANING, Outcome, Pass, is_op
from passes.graph import constant
from passes.match import producer

INDEXED = ("Gather", "GatherElements")
MIN_SIZE = 64  # elements: shapes and axes are not worth a second type


@dataclass(frozen=True)
class NarrowIndices(Pass):
    """Half of the bytes of constant indices, and no Cast of computed ones.

    Given:  y = Gather(x, i)   i: constants of int64, or i = Cast<int64>(j) with j of int32
    Result: y = Gather(x, i as int32)   or   y = Gather(x, j)
    """

    name: ClassVar[str] = "narrow-indices"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Constants are narrowed where all that read them take indices of either type."""
        changes = 0
        for graph in model.graphs():
            changes += sum(_uncast(node) for node in graph)
            changes += sum(_narrow(value) for value in list(graph.initializers.values()))
        return Outcome(changes)


def _uncast(node: ir.Node) -> bool:
    if not is_op(node, *INDEXED):
        return False
    cast = producer(node.inputs[1], "Cast")
    source = None if cast is None else cast.inputs[0]
    if source is None or source.dtype != ir.DataType.INT32 or _type(node) != ir.DataType.INT64:
        return False
    node.replace_input_with(1, source)
    return True


def _type(node: ir.Node) -> ir.DataType | None:
    cast = producer(node.inputs[1], "Cast")
    return None if cast is None else ir.DataType(cast.attributes["to"].as_int())


def _narrow(value: ir.Value) -> bool:
    """Give the value another tensor; name and users stay."""
    tensor = value.const_value
    if tensor is None or tensor.dtype != ir.DataType.INT64 or tensor.size < MIN_SIZE:
        return False
    fixed = value.is_graph_input() or value.is_graph_output() or not value.uses()
    if fixed or not all(is_op(n, *INDEXED) and i == 1 for n, i in value.uses()):
        return False
    array = constant(value)
    limits = np.iinfo(np.int32)
    if array is None or array.min() < limits.min or array.max() > limits.max:
        return False
    value.const_value = ir.tensor(array.astype(np.int32), name=value.name)
    value.type = ir.TensorType(ir.DataType.INT32)
    return True
