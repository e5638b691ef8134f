"""Facts of a model: nodes, parameters, bytes of weights, multiply-accumulates."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.functions import LOCAL
from passes.base import all_nodes, is_op

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Shape = tuple[int, ...]

SMALL_PARAMETERS = 1  # a scalar constant (an epsilon, an axis, a scale) is not a parameter


@dataclass(frozen=True)
class Facts:
    """Counts of one model; `macs` for one sample, dynamic dimensions as 1."""

    nodes: int
    parameters: int
    weight_bytes: int
    macs: int


def facts(model: ir.Model, *, with_macs: bool = True) -> Facts:
    """Nodes at all levels without Constants, elements and bytes of constants, MACs.

    MACs need shape inference, which is slow on large graphs; without it they are 0.
    """
    nodes = list(all_nodes(model))
    tensors = _constants(model, nodes)
    return Facts(
        nodes=sum(not is_op(n, "Constant") for n in nodes),
        parameters=sum(t.size for t in tensors if t.size > SMALL_PARAMETERS),
        weight_bytes=sum(t.nbytes for t in tensors),
        macs=sum(macs_by_node(model).values()) if with_macs else 0,
    )


def _constants(model: ir.Model, nodes: Sequence[ir.Node]) -> list[ir.TensorProtocol]:
    attributes = (a for n in nodes for a in n.attributes.values())
    inner = [a.as_graph() for a in attributes if a.type == ir.AttributeType.GRAPH]
    initialisers = [
        value.const_value
        for graph in (model.graph, *inner)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    held = [
        n.attributes["value"].as_tensor()
        for n in nodes
        if is_op(n, "Constant") and "value" in n.attributes
    ]
    return initialisers + held


def opset(model: ir.Model) -> int:
    """The version of the standard operators."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))


def macs_by_node(
    model: ir.Model, sizes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, int]:
    """Multiply-accumulates of each node that has any, by node name.

    Dynamic dimensions count as `sizes` (input name -> shape) says, else as 1.
    """
    counted = [(n, count) for n in all_nodes(model) if (count := _counter(n)) is not None]
    if not counted:
        return {}  # shape inference is slow on large graphs
    shapes = infer_shapes(model, sizes or {})
    found = ((n.name or "", count(n, shapes)) for n, count in counted)
    return {name: macs for name, macs in found if macs}


def infer_shapes(model: ir.Model, sizes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """Shapes of all values; see `macs_by_node` for dynamic dimensions."""
    return {
        value.name or "": tuple(d if isinstance(d, int) else 1 for d in value.shape)
        for value in inferred_values(model, sizes, default=1)
        if value.shape is not None
    }


def inferred_values(
    model: ir.Model, sizes: Mapping[str, Sequence[int]], default: int | None = None
) -> list[ir.Value]:
    """All named values of a copy after ONNX shape inference for these sizes of inputs.

    Inputs without a size have `default` in the place of each dynamic dimension; None leaves them.
    """
    import onnx_ir.passes.common as common

    copy = model.clone()
    for value in copy.graph.inputs:
        if value.shape is not None:
            given: Sequence[int | None] = sizes.get(value.name or "") or (default,) * len(
                value.shape
            )
            pairs = zip(value.shape, given, strict=True)
            dims = [d if isinstance(d, int) or g is None else g for d, g in pairs]
            value.shape = ir.Shape(dims)
    for node in copy.graph.all_nodes():
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    for value in copy.graph.outputs:
        value.shape = None if value.producer() is not None else value.shape
    common.ShapeInferencePass()(copy)
    found: list[ir.Value] = []
    for graph in copy.graphs():
        found += [*graph.inputs, *graph.initializers.values()]
        found += [o for n in graph for o in n.outputs]
    return [value for value in found if value.name]


def _shape(value: ir.Value | None, shapes: dict[str, Shape]) -> Shape | None:
    return None if value is None else shapes.get(value.name or "")


def _conv(weight_input: int) -> Callable[[ir.Node, dict[str, Shape]], int]:
    """Outputs times the taps and input channels that each of them sums."""

    def count(node: ir.Node, shapes: dict[str, Shape]) -> int:
        weight, out = _shape(node.inputs[weight_input], shapes), _shape(node.outputs[0], shapes)
        return prod(out) * prod(weight[1:]) if weight and out else 0

    return count


def _conv_transpose(node: ir.Node, shapes: dict[str, Shape]) -> int:
    """Every input element meets every tap and output channel of its group."""
    x, weight = _shape(node.inputs[0], shapes), _shape(node.inputs[1], shapes)
    return prod(x) * prod(weight[1:]) if x and weight else 0


def _matmul(first: int) -> Callable[[ir.Node, dict[str, Shape]], int]:
    def count(node: ir.Node, shapes: dict[str, Shape]) -> int:
        a, out = _shape(node.inputs[first], shapes), _shape(node.outputs[0], shapes)
        return prod(out) * a[-1] if a and out is not None else 0

    return count


def _counter(node: ir.Node) -> Callable[[ir.Node, dict[str, Shape]], int] | None:
    if node.domain == LOCAL and "shape" in node.attributes:
        return _binary
    return _COUNTERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None


def _binary(node: ir.Node, shapes: dict[str, Shape]) -> int:
    """A product of bits counts as one of floats; the attribute is the shape of the weight."""
    out = _shape(node.outputs[0], shapes)
    return prod(out) * prod(node.attributes["shape"].as_ints()[1:]) if out else 0


def _gemm(node: ir.Node, shapes: dict[str, Shape]) -> int:
    a, out = _shape(node.inputs[0], shapes), _shape(node.outputs[0], shapes)
    inner = 0 if node.attributes.get_int("transA", 0) else 1
    return prod(out) * a[inner] if a and out and len(a) > inner else 0


STEPS_SAMPLES_FEATURES = 3  # axes of what a recurrent operator reads


def _recurrent(gates: int) -> Callable[[ir.Node, dict[str, Shape]], int]:
    """Steps and samples times the input and the recurrent matrices of all directions.

    Sizes come from the attributes: the weights may be computed, and then have no known shape.
    """

    def count(node: ir.Node, shapes: dict[str, Shape]) -> int:
        x, hidden = _shape(node.inputs[0], shapes), node.attributes.get_int("hidden_size", 0)
        if not x or not hidden or len(x) < STEPS_SAMPLES_FEATURES:
            return 0
        both = node.attributes.get_string("direction", "forward") == "bidirectional"
        matrices = gates * hidden * (x[2] + hidden)
        return prod(x[:2]) * matrices * (2 if both else 1)

    return count


_COUNTERS: dict[str, Callable[[ir.Node, dict[str, Shape]], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul(0),
    "MatMulInteger": _matmul(0),
    "QLinearMatMul": _matmul(0),
    "Gemm": _gemm,
    "LSTM": _recurrent(4),
    "GRU": _recurrent(3),
    "RNN": _recurrent(1),
}
