"""Which nodes become integer, and which values between them are quantised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import UsageError
from passes.base import Refusal, all_nodes, is_op
from passes.graph import constant

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# Traits of operators under static quantisation; what is in none of them stays in float.
LINEAR = {"Conv", "Gemm", "MatMul"}  # a product with weights: worth quantising by itself
FOLLOWERS = {  # computed on integers when an input is quantised already
    "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "Sigmoid", "LeakyRelu",
}  # fmt: skip
MOVERS = {  # move numbers around: the output has the parameters of the input
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool", "Slice", "Split",
    "Gather", "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
CLAMPS = {"Relu", "Clip"}  # part of the operator before them: saturation does their work
SMALL_ROWS = 2  # a MatMul needs two axes


@dataclass
class Selection:
    """The plan of a quantisation: nodes by name, values as objects."""

    nodes: dict[str, ir.Node] = field(default_factory=dict)
    clamps: dict[str, ir.Node] = field(default_factory=dict)
    inputs: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, ir.Value] = field(default_factory=dict)
    float_outputs: set[str] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, node: ir.Node, reason: str) -> None:
        """Note why a node stays in float."""
        self.refusals.append(Refusal(node.name or "?", node.op_type, reason))

    def output_of(self, node: ir.Node) -> ir.Value:
        """The value that is quantised behind a node: after its clamp where it has one."""
        clamp = self.clamps.get(node.name or "")
        return (clamp or node).outputs[0]


def select(model: ir.Model, exclude: Collection[str]) -> Selection:
    """Decide for every node of the main graph, in order; layers in branches stay in float.

    Raises:
        UsageError: `exclude` names a node that is not there.

    """
    names = {n.name for n in all_nodes(model)}
    for name in exclude:
        if name not in names:
            raise UsageError(f"--exclude {name!r}: the model has no such node")
    chosen = Selection()
    for node in model.graph:
        if is_op(node, *CLAMPS) and any(c is node for c in chosen.clamps.values()):
            continue
        if node.name in exclude:
            chosen.refuse(node, "excluded by the user")
            continue
        reason = _consider(chosen, node)
        if reason is not None:
            chosen.refuse(node, reason)
    _leave_float_ends(chosen)
    outer = {id(n) for n in model.graph}
    for node in all_nodes(model):
        if is_op(node, *LINEAR) and id(node) not in outer:
            chosen.refuse(node, "it is in a branch or a loop")
    return chosen


def _consider(chosen: Selection, node: ir.Node) -> str | None:
    """Take the node, or say why not."""
    if not is_op(node, *LINEAR, *FOLLOWERS, *MOVERS):
        return f"{node.op_type} has no integer kernel"
    check = _CHECKS.get(node.op_type)
    reason = (check(node) if check else None) or _float_reason(node)
    if reason is not None:
        return reason
    operands = _activations(node)
    if node.op_type not in LINEAR and not any(_is_taken(chosen, node.inputs[i]) for i in operands):
        return "its inputs are in float"
    _take(chosen, node, operands)
    return None


def _take(chosen: Selection, node: ir.Node, operands: list[int]) -> None:
    name = node.name or ""
    chosen.nodes[name] = node
    chosen.inputs[name] = operands
    for index in operands:
        value = node.inputs[index]
        assert value is not None
        chosen.values[value.name or ""] = value
    if node.op_type not in MOVERS and (clamp := _clamp_after(node)):
        chosen.clamps[name] = clamp
    for output in node.outputs if node.op_type in MOVERS else [chosen.output_of(node)]:
        chosen.values[output.name or ""] = output


def _is_taken(chosen: Selection, value: ir.Value | None) -> bool:
    return value is not None and (value.name or "") in chosen.values


def _activations(node: ir.Node) -> list[int]:
    """Indices of the inputs that carry activations (not weights, shapes or limits)."""
    if node.op_type in ("Add", "Mul", "Concat"):
        return [i for i, v in enumerate(node.inputs) if v is not None]
    if node.op_type == "MatMul" and constant(node.inputs[1]) is None:
        return [0, 1]
    return [0]


def _clamp_after(node: ir.Node) -> ir.Node | None:
    """A Relu or Clip from zero that is the only user of the node's output."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return None
    clamp = uses[0].node
    if is_op(clamp, "Relu"):
        return clamp
    if not is_op(clamp, "Clip") or clamp.inputs[0] is not output:
        return None
    low = constant(clamp.inputs[1]) if len(clamp.inputs) > 1 else None
    high = constant(clamp.inputs[2]) if len(clamp.inputs) > 2 else None
    missing = len(clamp.inputs) > 2 and clamp.inputs[2] is not None and high is None
    # Only a limit at zero lies exactly on a quantised level whatever the scale.
    return clamp if low is not None and float(low) == 0 and not missing else None


def _float_reason(node: ir.Node) -> str | None:
    for index in _activations(node):
        value = node.inputs[index]
        dtype = None if value is None else value.dtype
        if dtype is not None and dtype != ir.DataType.FLOAT:
            return f"input {value.name if value else '?'} is {dtype.name}, not FLOAT"
    return None


def is_layer(node: ir.Node) -> bool:
    """Is it a Conv, Gemm or MatMul with a constant weight?"""
    return is_op(node, *LINEAR) and constant(node.inputs[1]) is not None


def weight_reason(node: ir.Node) -> str | None:
    """Why the weight of a Conv, Gemm or MatMul cannot be changed; None when it can."""
    return _weight_reason(node) or _CHECKS[node.op_type](node)


def _weight_reason(node: ir.Node) -> str | None:
    weight = node.inputs[1]
    if weight is None or constant(weight) is None:
        kind = "a graph input" if weight is not None and weight.is_graph_input() else "computed"
        return f"its weight {weight.name if weight else '?'} is {kind}"
    array = constant(weight)
    if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
        return f"its weight {weight.name} holds NaN or infinity"
    if weight.is_graph_output():
        return f"its weight {weight.name} is a graph output"
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and constant(bias) is None:
        return f"its bias {bias.name} is not a constant"
    return None


def _gemm_reason(node: ir.Node) -> str | None:
    if reason := _weight_reason(node):
        return reason
    if node.attributes.get_float("alpha", 1.0) != 1 or node.attributes.get_float("beta", 1.0) != 1:
        return "it scales its product"
    if node.attributes.get_int("transA", 0):
        return "its input is transposed"
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None and bias.ndim > 1 and bias.size != bias.shape[-1]:
        return "it adds a matrix"
    return None


def _matmul_reason(node: ir.Node) -> str | None:
    weight = constant(node.inputs[1])
    if constant(node.inputs[0]) is not None:
        return "its first input is a constant"
    if weight is not None and weight.ndim != SMALL_ROWS:
        return f"its weight has {weight.ndim} axes"
    return None


def _gather_reason(node: ir.Node) -> str | None:
    return "it reads a table of constants" if constant(node.inputs[0]) is not None else None


def _maxpool_reason(node: ir.Node) -> str | None:
    used = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return "its indices are used" if used else None


_CHECKS: dict[str, Callable[[ir.Node], str | None]] = {
    "Conv": _weight_reason,
    "Gemm": _gemm_reason,
    "MatMul": _matmul_reason,
    "Gather": _gather_reason,
    "MaxPool": _maxpool_reason,
}


def _leave_float_ends(chosen: Selection) -> None:
    """A Gemm or MatMul that only float readers see keeps its exact accumulator.

    Rounding its output to 8 bits would cost accuracy and save nothing.
    """
    read = {
        node.inputs[i].name  # type: ignore[union-attr]
        for name, node in chosen.nodes.items()
        for i in chosen.inputs[name]
    }
    for name, node in chosen.nodes.items():
        if node.op_type not in ("Gemm", "MatMul"):
            continue
        clamp = chosen.clamps.get(name)
        output = chosen.output_of(node)
        if output.name in read:
            continue
        if clamp is not None:
            del chosen.clamps[name]
            chosen.refuse(clamp, "its output is read in float only")
        chosen.values.pop(output.name or "", None)
        chosen.float_outputs.add(name)
