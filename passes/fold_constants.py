"""Constant folding with our own kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import KernelError, UnsupportedOpError
from infer_runtime.evaluate import run_node
from passes.base import CLEANING, Outcome, Pass, Refusal, all_nodes, is_op
from passes.facts import opset
from passes.graph import MAX_GROWTH_BYTES, become_constant, constant, is_constant, remove_node

RANDOM = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial",
    "Bernoulli",
}  # fmt: skip
# Folding these would undo a quantisation: the weights would be float again.
QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Compute what does not depend on the inputs.

    Given:  y = Op(c1, c2, ...)   with constants only, or Shape of a value of static shape
    Result: an initialiser y
    """

    name: ClassVar[str] = "fold-constants"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """One walk in order: a folded node makes its users foldable."""
        changes, refusals = 0, []
        version = opset(model)
        for node in list(all_nodes(model)):
            inputs = _constant_inputs(node)
            if inputs is None:
                continue
            if reason := _refuse(node):
                refusals.append(Refusal(node.name or "?", node.op_type, reason))
                continue
            try:
                results = run_node(node, inputs, version)
            except (KernelError, UnsupportedOpError) as error:
                refusals.append(Refusal(node.name or "?", node.op_type, str(error)))
                continue
            if reason := _too_large(inputs, results):
                refusals.append(Refusal(node.name or "?", node.op_type, reason))
                continue
            _replace(node, results)
            changes += 1
        return Outcome(changes, tuple(refusals))


def _constant_inputs(node: ir.Node) -> list[Any] | None:
    """The arrays of all inputs; None when one of them is not constant."""
    if is_op(node, "Constant") or node.domain not in ("", "ai.onnx"):
        return None
    if is_op(node, "Shape", "Size") and node.inputs[0] is not None:
        return _static_shape(node, node.inputs[0])
    if is_op(node, "CastLike"):
        return _cast_like(node)
    if not any(v is not None for v in node.inputs):
        return None
    if not all(v is None or is_constant(v) for v in node.inputs):
        return None  # found out before any weight is read
    return [constant(v) for v in node.inputs]


def _cast_like(node: ir.Node) -> list[Any] | None:
    """Of the second input only the type matters."""
    value, target = constant(node.inputs[0]), node.inputs[1]
    if value is None or target is None or target.dtype is None:
        return None
    return [value, np.zeros(0, target.dtype.numpy())]


def _static_shape(node: ir.Node, value: ir.Value) -> list[Any] | None:
    """A stand-in without memory that has the shape, when every dimension asked for is known.

    The others are 1 in it: a Shape with start and end does not look at them.
    """
    if value.shape is None:
        return None
    dims = list(value.shape)
    asked = slice(None)
    if is_op(node, "Shape"):
        end = node.attributes.get("end")
        asked = slice(node.attributes.get_int("start", 0), None if end is None else end.as_int())
    if not all(isinstance(d, int) for d in dims[asked]):
        return None
    sizes = tuple(d if isinstance(d, int) else 1 for d in dims)
    return [np.broadcast_to(np.zeros((), np.bool_), sizes)]


def _refuse(node: ir.Node) -> str | None:
    if node.op_type in QUANTISED:
        return "folding would undo the quantisation"
    if node.op_type in RANDOM:
        return "the result is random"
    if any(o.is_graph_output() for o in node.outputs):
        return f"{node.outputs[0].name} is a graph output"
    if any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values()):
        return "the node has a subgraph"
    return None


def _too_large(inputs: list[Any], results: tuple[Any, ...]) -> str | None:
    if any(not isinstance(r, np.ndarray) for r in results):
        return "the result is not a tensor"
    # An input with other users stays, but these mostly fold as well: the slices of a weight.
    growth = sum(r.nbytes for r in results) - sum(a.nbytes for a in inputs if a is not None)
    if growth > MAX_GROWTH_BYTES:
        return f"the file would grow by {growth} bytes"
    return None


def _replace(node: ir.Node, results: tuple[Any, ...]) -> None:
    for output, array in zip(node.outputs, results, strict=False):
        if output.uses():
            # A view of a larger array would keep that one alive.
            become_constant(output, np.array(array, order="C"))
    remove_node(node)
