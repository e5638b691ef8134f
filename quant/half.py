"""Half precision: weights and computation in float16, interface unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import UsageError
from passes.base import Refusal, is_op
from passes.graph import constant, fresh_name
from quant.coverage import measure_coverage
from quant.model import Quantized

if TYPE_CHECKING:
    from quant.config import QuantizeConfig

    Array = np.ndarray[Any, Any]

LARGEST_HALF = float(np.finfo(np.float16).max)
# Operators whose float inputs are sizes, steps or scores that need more than 11 bits, or whose
# definition has no float16.
FULL = {
    "Resize", "Upsample", "Range", "CumSum", "NonMaxSuppression", "RoiAlign", "QuantizeLinear",
    "DequantizeLinear", "DynamicQuantizeLinear", "RandomNormal", "RandomUniform", "Multinomial",
}  # fmt: skip
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def quantize_half(model: ir.Model, config: QuantizeConfig) -> Quantized:
    """Convert a copy; nodes that cannot be float16 are surrounded by Casts.

    Raises:
        UsageError: the model has control flow, or no node can be converted.

    """
    copy = model.clone()
    nodes = list(copy.graph)
    if any(a.type == ir.AttributeType.GRAPH for n in nodes for a in n.attributes.values()):
        raise UsageError("fp16 does not cover If, Loop and Scan yet; use --scheme int8")
    refusals = []
    half_nodes: list[ir.Node] = []
    for node in nodes:
        if reason := _reason(node, config):
            refusals.append(Refusal(node.name or "?", node.op_type, reason))
        else:
            half_nodes.append(node)
    if not half_nodes:
        raise UsageError("no node of this model can run in half precision")
    converter = _Converter(copy, {id(n) for n in half_nodes})
    converter.convert()
    names = {n.name or "" for n in half_nodes}
    coverage = measure_coverage(model, names, converter.weights, tuple(refusals))
    return Quantized(copy, coverage, tuple(refusals))


def _reason(node: ir.Node, config: QuantizeConfig) -> str | None:
    if node.name in config.exclude:
        return "excluded by the user"
    if is_op(node, *FULL):
        return f"{node.op_type} needs full precision"
    if node.domain not in ("", "ai.onnx"):
        return f"domain {node.domain} is unknown"
    for value in node.inputs:
        array = constant(value)
        too_large = (
            array is not None
            and array.dtype == np.float32
            and np.abs(array[np.isfinite(array)]).max(initial=0.0) > LARGEST_HALF
        )
        if too_large:
            return f"{value.name if value else '?'} exceeds the largest float16, {LARGEST_HALF:g}"
    return None


class _Converter:
    """Every float value exists in one precision, that of its producer; Casts bridge the rest."""

    def __init__(self, model: ir.Model, half: set[int]) -> None:
        self.graph = model.graph
        self.half = half
        self.weights: set[str] = set()
        self._cast: dict[tuple[int, ir.DataType], ir.Value] = {}

    def convert(self) -> None:
        """Producers first: then each reader knows what it gets."""
        floats = [v for n in self.graph for v in n.outputs if v.dtype == FLOAT]
        outputs = {id(v) for v in self.graph.outputs}
        nodes = list(self.graph)
        for node in nodes:
            if id(node) in self.half:
                _retarget(node)
        for value in floats:
            producer = value.producer()
            if id(producer) in self.half and id(value) not in outputs:
                value.type = ir.TensorType(HALF)
        for node in nodes:
            self._convert_inputs(node)
        for position, value in enumerate(list(self.graph.outputs)):
            producer = value.producer()
            if value.dtype == FLOAT and producer is not None and id(producer) in self.half:
                self._convert_output(position, value)

    def _convert_inputs(self, node: ir.Node) -> None:
        wanted = HALF if id(node) in self.half else FLOAT
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (FLOAT, HALF) and self._dtype(value) != wanted:
                node.replace_input_with(index, self._as(value, wanted))

    def _dtype(self, value: ir.Value) -> ir.DataType | None:
        """What really arrives: a graph output made by a half node is still to be cast."""
        producer = value.producer()
        if value.dtype == FLOAT and producer is not None and id(producer) in self.half:
            return HALF
        return value.dtype

    def _as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        key = (id(value), wanted)
        if key not in self._cast:
            array = constant(value)
            if array is not None:
                self._cast[key] = self._half_constant(value, array)
            else:
                self._cast[key] = self._insert_cast(value, wanted)
        return self._cast[key]

    def _half_constant(self, value: ir.Value, array: Array) -> ir.Value:
        self.weights.add(value.name or "")
        name = fresh_name(self.graph, f"{value.name}_h")
        tensor = ir.tensor(array.astype(np.float16), name=name)
        result = ir.Value(
            name=name, shape=value.shape, type=ir.TensorType(HALF), const_value=tensor
        )
        self.graph.register_initializer(result)
        if value.name and not [u for u in value.uses() if id(u.node) not in self.half]:
            self.graph.initializers.pop(value.name, None)
        return result

    def _insert_cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        name = fresh_name(self.graph, f"{value.name}_cast")
        cast = ir.node("Cast", [value], attributes={"to": int(wanted)}, name=name)
        result = cast.outputs[0]
        result.name, result.shape, result.type = name, value.shape, ir.TensorType(wanted)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], cast)
        else:
            self.graph.insert_after(producer, cast)
        return result

    def _convert_output(self, position: int, value: ir.Value) -> None:
        """The interface keeps its name and float32."""
        name = value.name or ""
        value.type = ir.TensorType(HALF)
        result = self._insert_cast(value, FLOAT)
        self.graph.outputs[position] = result
        value.name = fresh_name(self.graph, f"{name}_half")
        result.name = name


def _retarget(node: ir.Node) -> None:
    """Attributes that name or hold float32."""
    to = node.attributes.get("to")
    if is_op(node, "Cast") and to is not None and to.as_int() == FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", int(HALF))
    value = node.attributes.get("value")
    if is_op(node, "ConstantOfShape", "Constant"):
        tensor = None if value is None else value.as_tensor()
        array = np.zeros(1, np.float32) if tensor is None else tensor.numpy()
        if array.dtype == np.float32:
            half = ir.tensor(array.astype(np.float16))
            node.attributes["value"] = ir.AttrTensor("value", half)
