"""Writing QDQ graphs: the Q and DQ nodes of a model whose numbers are chosen.

Every quantised value becomes QuantizeLinear -> DequantizeLinear behind its producer; every integer
node reads DequantizeLinear and writes into QuantizeLinear, the form that engines fuse into integer
kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.graph import add_initializer, constant, fresh_name, take_description
from quant.formats import INT32
from quant.granularity import Granularity, PerAxis
from quant.packing import BYTE
from quant.store import Store
from quant.tensor import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quant.linear import Linear
    from quant.parameters import Parameters
    from quant.selection import Selection

    Array = np.ndarray[Any, Any]

WORTH_A_NODE = 64  # numbers of 2 or 4 bytes that take more room than a node that computes them


@dataclass
class Emitter:
    """Writes the Q and DQ nodes of one model."""

    model: ir.Model
    chosen: Selection
    parameters: dict[str, Parameters]
    linears: Mapping[str, Linear]
    compact: bool = False
    weights: set[str] = field(default_factory=set)
    _scalars: dict[tuple[str, bytes], ir.Value] = field(default_factory=dict)
    _stored: dict[tuple[str, Granularity, bytes], tuple[ir.Value, ir.Value]] = field(
        default_factory=dict
    )

    def emit(self) -> None:
        """Drop clamps, then weights, then activations."""
        self._drop_clamps()
        for node in self.chosen.nodes.values():
            if node.name in self.linears:
                self._emit_weights(node)
        for name, value in self.chosen.values.items():
            self._emit_activation(name, value)

    def _drop_clamps(self) -> None:
        """Saturation of the quantised output is the clamp: its range starts at zero."""
        for name, clamp in self.chosen.clamps.items():
            node = self.chosen.nodes[name]
            clamped, raw = clamp.outputs[0], node.outputs[0]
            is_output = clamped.is_graph_output()
            take_description(raw, clamped)
            clamped.replace_all_uses_with(raw, replace_graph_outputs=is_output)
            self.model.graph.remove(clamp, safe=True)
            final, clamped.name = clamped.name, None
            raw.name = final
            self.chosen.values[final or ""] = raw

    def _emit_weights(self, node: ir.Node) -> None:
        weight, source = node.inputs[1], node.inputs[0]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        assert weight is not None
        assert source is not None
        input_scale = self.parameters[source.name or ""].scale
        linear = self.linears[node.name or ""]
        number, scale = self._weight(node, weight, linear)
        node.replace_input_with(1, number)
        self.weights.add(weight.name or "")
        if linear.bias is not None:
            factor = (linear.scale * input_scale).astype(np.float32)
            shared = (scale, self._scalar("s", np.asarray(input_scale, np.float32)))
            found = self._bias(node, bias, linear.bias, factor, shared)
            node.resize_inputs(3)
            node.replace_input_with(2, found)
        if bias is not None:
            self.weights.add(bias.name or "")

    def _weight(self, node: ir.Node, weight: ir.Value, linear: Linear) -> tuple[ir.Value, ir.Value]:
        """The dequantised weight and its scale; nodes that share its levels share both."""
        # ONNX Runtime 1.31 makes QGemm and QLinearMatMul only of explicit zero points.
        explicit_zero = node.op_type != "Conv"
        numbers = sha256(linear.scale.tobytes() + linear.levels.tobytes()).digest()
        key = (weight.name or "", linear.granularity, numbers + bytes([explicit_zero]))
        if key not in self._stored:
            name = f"w{len(self._stored)}" if self.compact else weight.name or "w"
            stored = QuantizedTensor(linear.format, linear.granularity, linear.levels, linear.scale)
            levels = Store(self.model).levels(name, stored)
            scale = self._weight_scale(name, linear.scale)
            inputs = [levels, scale]
            if explicit_zero:
                inputs.append(self._scalar("z", np.zeros(linear.scale.shape, np.int8)))
            axis = linear.granularity.axis if isinstance(linear.granularity, PerAxis) else None
            self._stored[key] = self._dequantize(inputs, f"{name}_dq", axis), scale
        return self._stored[key]

    def _weight_scale(self, name: str, scale: Array) -> ir.Value:
        """Two bytes each where they hold the scales exactly."""
        half = scale.astype(np.float16)
        if not self.compact or scale.size < WORTH_A_NODE or np.any(half != scale):
            return self._constant(f"{name}_s", scale)
        stored = self._constant(f"{name}_h", half)
        return self._insert("Cast", [stored], f"{name}_s", None, {"to": int(ir.DataType.FLOAT)})

    def _bias(
        self,
        node: ir.Node,
        bias: ir.Value | None,
        array: Array,
        factor: Array,
        scales: tuple[ir.Value, ir.Value],
    ) -> ir.Value:
        """int32 at the scale of the accumulator, which is what integer kernels add."""
        shaped = np.broadcast_to(array, (max(array.size, factor.size),))
        levels = INT32.quantize(shaped, factor, np.zeros((), np.int64))
        name = f"{node.name}_bias" if bias is None else bias.name or ""
        if bias is not None and len(list(bias.uses())) > 1:
            name = f"{name}_{node.name}"
        if self.compact:
            name = f"b{len(self.weights)}"
        stored = self._constant(f"{name}_q", levels)
        if self.compact and factor.size >= WORTH_A_NODE:
            scale = self._insert("Mul", list(scales), f"{name}_s", scales[0].producer())
        else:
            scale = self._constant(f"{name}_s", factor)
        return self._dequantize([stored, scale], f"{name}_dq", 0 if factor.ndim else None)

    def _emit_activation(self, name: str, value: ir.Value) -> None:
        """Quantise a value once; integer readers, and all readers of an integer node, use it."""
        p = self.parameters[name]
        producer = value.producer()
        made_by_integer = producer is not None and producer.name in self.chosen.nodes
        users = [
            (use.node, use.idx)
            for use in list(value.uses())
            if made_by_integer or self._is_operand(use.node, use.idx)
        ]
        is_output = value.is_graph_output() and made_by_integer
        if not users and not is_output:
            return
        array = constant(value)
        if array is not None:
            self.weights.add(name)
        result = self._rounded(value, p, name, array)
        for node, index in users:
            node.replace_input_with(index, result)
        if is_output:
            self._hand_over_output(value, result)

    def _rounded(self, value: ir.Value, p: Parameters, name: str, array: Array | None) -> ir.Value:
        """The value after Q and DQ; a constant is stored in its levels."""
        if array is not None:
            levels = p.format.quantize(array, np.asarray(p.scale), np.asarray(p.zero_point))
            quantized = self._constant(f"{name}_q", levels)
        else:
            quantized = self._quantize(value, p, f"{name}_q")
            if p.format.bits < BYTE:
                quantized = self._saturated(quantized, p, f"{name}_c")
        return self._dequantize([quantized, *self._affine(p)], f"{name}_dq")

    def _is_operand(self, node: ir.Node, index: int) -> bool:
        return index in self.chosen.inputs.get(node.name or "", ())

    def _hand_over_output(self, value: ir.Value, result: ir.Value) -> None:
        """The dequantised value is the graph output, under the name that users know."""
        graph = self.model.graph
        position = next(i for i, v in enumerate(graph.outputs) if v is value)
        name = value.name or ""
        result.shape, result.type = value.shape, value.type
        graph.outputs[position] = result
        value.name = fresh_name(graph, f"{name}_raw")
        result.name = name

    # Building blocks

    def _constant(self, name: str, array: Array) -> ir.Value:
        return add_initializer(self.model.graph, name, array)

    def _scalar(self, prefix: str, array: Array) -> ir.Value:
        """Equal scales and zero points are stored once."""
        key = (f"{prefix}{array.dtype}{array.shape}", array.tobytes())
        if key not in self._scalars:
            self._scalars[key] = self._constant(f"{prefix}{len(self._scalars)}", array)
        return self._scalars[key]

    def _quantize(self, value: ir.Value, p: Parameters, name: str) -> ir.Value:
        inputs = [value, *self._affine(p)]
        output = self._insert("QuantizeLinear", inputs, name, value.producer())
        output.shape = value.shape
        output.type = ir.TensorType(ir.DataType.from_numpy(p.format.dtype))
        return output

    def _saturated(self, quantized: ir.Value, p: Parameters, name: str) -> ir.Value:
        """Bytes that hold short levels.

        Types of 4 bits would say it without a node, but ONNX Runtime 1.31 makes integer kernels
        of them that do not exist, and refuses the file.
        """
        limits = [np.asarray(n, p.format.dtype) for n in (p.format.low, p.format.high)]
        inputs = [quantized, *(self._scalar("l", limit) for limit in limits)]
        output = self._insert("Clip", inputs, name, quantized.producer())
        output.shape, output.type = quantized.shape, quantized.type
        return output

    def _dequantize(self, inputs: list[ir.Value], name: str, axis: int | None = None) -> ir.Value:
        """Behind its Q, or before everything when it reads initialisers."""
        attributes = {} if axis is None else {"axis": axis}
        after = inputs[0].producer() or inputs[1].producer()
        output = self._insert("DequantizeLinear", inputs, name, after, attributes)
        output.shape, output.type = inputs[0].shape, ir.TensorType(ir.DataType.FLOAT)
        return output

    def _affine(self, p: Parameters) -> list[ir.Value]:
        scale = self._scalar("s", np.asarray(p.scale, np.float32))
        return [scale, self._scalar("z", np.asarray(p.zero_point, p.format.dtype))]

    def _insert(
        self,
        op_type: str,
        inputs: list[ir.Value],
        name: str,
        after: ir.Node | None,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        graph = self.model.graph
        unique = fresh_name(graph, name)
        node = ir.node(op_type, inputs, attributes=attributes or {}, name=unique)
        node.outputs[0].name = unique
        if after is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(after, node)
        return node.outputs[0]
