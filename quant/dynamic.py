"""Products in integers whose activations get their scale in each run, from the values they have.

MatMul and Gemm become DynamicQuantizeLinear and MatMulInteger, which ONNX Runtime fuses; tables
and the weights of other operators are stored in int8 and computed in float. ConvInteger stays out:
it is slower than the float convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import UsageError
from passes.graph import (
    add_initializer,
    constant,
    forget_names,
    fresh_name,
    remove_node,
    replace_value,
)
from passes.match import argument
from passes.remove_unused import RemoveUnused
from quant.coverage import measure_coverage
from quant.formats import INT8
from quant.granularity import PerAxis
from quant.model import Quantized
from quant.moments import Watch, rows_of
from quant.parameters import quantize_weight, weight_scale
from quant.scaling import scale_input, smooth
from quant.weight_only import WeightOnly, by_input, observe_values, product_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from quant.config import QuantizeConfig
    from quant.moments import Moments

    Array = np.ndarray[Any, Any]

SMOOTH = 0.7


def quantize_dynamic(
    model: ir.Model, feeds: Iterable[Mapping[str, Array]], config: QuantizeConfig
) -> Quantized:
    """Quantise a copy; `feeds` are read only to smooth the inputs of products.

    Raises:
        UsageError: wrong data, or no product has a constant weight.

    """
    copy = model.clone()
    forget_names(copy)  # new ones in a branch must be new around it too
    rest = WeightOnly(copy, replace(config, algorithm="mse", block_size=0), INT8)
    rest.choose()
    products = [s.node for places in rest.chosen.values() if (s := product_of(places))]
    if not products:
        raise UsageError("no MatMul or Gemm of this model has a constant weight; try int8-weight")
    strength = smoothing(config)
    outer = [n for n in products if n.graph is copy.graph]  # branches keep their outliers
    watch = Watch(outer if strength else (), products=False)
    if strength:
        observe_values(copy, feeds, watch)
    weights = {n.inputs[1].name or "" for n in products if n.inputs[1] is not None}
    for name in weights:
        del rest.chosen[name]
    covered = {n.name or "" for n in products}
    emit_dynamic(copy.graph, products, watch.moments, strength)
    covered |= rest.store()
    RemoveUnused().apply(copy)
    refusals = tuple(rest.refusals)
    coverage = measure_coverage(model, covered, weights | rest.weights, refusals)
    return Quantized(copy, coverage, refusals)


def smoothing(config: QuantizeConfig) -> float:
    """How far outliers of activations move into the weights of dynamic products."""
    return SMOOTH if config.smooth is None else config.smooth


def emit_dynamic(
    graph: ir.Graph, products: Sequence[ir.Node], moments: Mapping[str, Moments], strength: float
) -> None:
    """Let MatMul and Gemm nodes compute in integers; inputs of known moments are smoothed."""
    if strength:
        _smooth([n for n in products if n.graph is graph], moments, strength)
    emitter = _Emitter(graph)
    for node in products:
        emitter.emit(node)


def _smooth(products: Sequence[ir.Node], moments: Mapping[str, Moments], strength: float) -> None:
    """Move outliers of inputs into the weights that read them; those in branches stay."""
    for nodes in by_input(products):
        weights = [constant(n.inputs[1]) for n in nodes]
        rows = [rows_of(n, w)[0] for n, w in zip(nodes, weights, strict=True) if w is not None]
        met = moments.get(nodes[0].inputs[1].name or "") if nodes[0].inputs[1] else None
        if met is not None and met.rows:
            scale_input(nodes, smooth(rows, met.largest[0], strength))


@dataclass
class _Emitter:
    """Writes the integer products; readers of one value in one graph share its levels."""

    graph: ir.Graph
    _levels: dict[tuple[int, int], tuple[ir.Value, ir.Value, ir.Value]] = field(
        default_factory=dict
    )

    def emit(self, node: ir.Node) -> None:
        """y = (x_q - x_zero) W_q * (x_scale * W_scale) + bias."""
        levels, scale, zero = self._input(node)
        weight = constant(node.inputs[1])
        assert weight is not None
        matrix = np.ascontiguousarray(rows_of(node, weight)[0].T)  # [inputs, outputs]
        steps = weight_scale(matrix, PerAxis(1), None, 1.0)
        name = node.inputs[1].name if node.inputs[1] is not None else "w"
        stored = add_initializer(
            self.graph, f"{name}_q", quantize_weight(matrix, steps, PerAxis(1))
        )
        factor = add_initializer(self.graph, f"{name}_s", steps)
        # Without a zero point ONNX Runtime takes signed weights for unsigned ones when it fuses.
        offset = add_initializer(self.graph, f"{name}_z", np.zeros(steps.shape, np.int8))
        result = self._node(node, "MatMulInteger", [levels, stored, zero, offset], name=node.name)
        result = self._node(node, "Cast", [result], to=int(ir.DataType.FLOAT))
        both = self._node(node, "Mul", [scale, factor])
        result = self._node(node, "Mul", [result, both])
        if (bias := argument(node, 2)) is not None:
            result = self._node(node, "Add", [result, bias])
        result.shape, result.type = node.outputs[0].shape, node.outputs[0].type
        replace_value(node.outputs[0], result)
        remove_node(node)

    def _input(self, node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
        value = node.inputs[0]
        assert value is not None
        key = (id(value), id(node.graph))
        if key not in self._levels:
            new = ir.node("DynamicQuantizeLinear", [value], num_outputs=3)
            new.name = fresh_name(self.graph, f"{value.name}_quantize")
            for output, suffix in zip(new.outputs, ("q", "scale", "zero"), strict=True):
                output.name = fresh_name(self.graph, f"{value.name}_{suffix}")
            _graph(node).insert_before(node, new)
            self._levels[key] = (new.outputs[0], new.outputs[1], new.outputs[2])
        return self._levels[key]

    def _node(
        self,
        before: ir.Node,
        op_type: str,
        inputs: list[ir.Value],
        name: str | None = None,
        **attributes: int,
    ) -> ir.Value:
        unique = fresh_name(self.graph, f"{before.name}_{op_type.lower()}")
        node = ir.node(op_type, inputs, attributes=attributes, name=name or unique)
        node.outputs[0].name = unique
        _graph(before).insert_before(before, node)
        return node.outputs[0]


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
