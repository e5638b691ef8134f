"""From what was learned to a file: bits, and the functions that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.graph import add_initializer, forget_names, fresh_name
from passes.match import replace_node
from passes.remove_unused import RemoveUnused
from passes.verify import verify
from quant.binarize.functions import BITS, GEOMETRY, define, define_sign
from quant.domain import DOMAIN
from quant.packing import pack
from quant.train.binary import AROUND
from quant.train.fake import TRAIN_DOMAIN

if TYPE_CHECKING:
    from quant.binarize.simulate import Layer, Simulation

    Array = np.ndarray[Any, Any]


FORMS = {"binary": "Binary", "ternary": "Ternary"}


@dataclass(frozen=True)
class Emitted:
    """A model, and the bytes of the constants of its binary layers, in the source and here."""

    model: ir.Model
    layer_bytes: tuple[int, int]


def emit(simulation: Simulation) -> Emitted:
    """The simulated model with its learned numbers, its binary layers as calls of functions.

    Raises:
        ModelError: the result is not a valid graph.

    """
    model = simulation.module.written()
    forget_names(model)
    after = sum(_Emitter(model, layer, simulation).emit() for layer in simulation.layers)
    RemoveUnused().apply(model)
    model.opset_imports.pop(TRAIN_DOMAIN)
    verify(model)
    names = {layer.node for layer in simulation.layers}
    nodes = [node for node in simulation.source.graph if node.name in names]
    constants = [v.const_value for n in nodes for v in n.inputs if v is not None]
    return Emitted(model, (sum(c.nbytes for c in constants if c is not None), after))


class _Emitter:
    """One layer."""

    def __init__(self, model: ir.Model, layer: Layer, simulation: Simulation) -> None:
        self.model, self.graph, self.layer = model, model.graph, layer
        self.values = {v.name: v for v in model.graph.inputs}
        self.values |= {v.name: v for node in model.graph for v in node.outputs}
        self.weights = simulation.config.weights
        self.levels = simulation.levels(layer)
        self.bytes = 0

    def emit(self) -> int:
        """Put a call in the place of the nodes that compute the output; bytes of its constants."""
        last = self.values[self.layer.output].producer()
        assert last is not None
        if last.op_type == AROUND:
            y, x, *_ = last.inputs
            gain = self._put(last, "Cast", [self._half("gain")], to=int(ir.DataType.FLOAT))
            around = self._put(last, "Mul", [x, gain])
            replace_node(last, "Add", [y, around])
            assert y is not None
            last = y.producer()
            assert last is not None
        self._call(last)
        return self.bytes

    def _call(self, last: ir.Node) -> None:
        """The functions, and their inputs after the first one."""
        layer, kind = self.layer, self.layer.kind
        given: list[ir.Value] = [self.values[layer.input]]
        form = FORMS[self.weights]
        if layer.shift and form == "Binary":
            form, given = "Xnor", [*given, self._threshold()]
        elif layer.shift:
            sign = self._put(last, define_sign(self.model), [*given, self._threshold()])
            sign.producer().domain, given = DOMAIN, [sign]  # type: ignore[union-attr]
        bits = BITS[form]
        stored = (self.levels + 1) // (2 if bits == 1 else 1)
        given.append(self._constant("packed", pack(stored.astype(np.uint8), bits)))
        ones = (1,) * (self.levels.ndim - 2)
        given.append(self._half("scale", *([-1, *ones] if form == "Xnor" else [])))
        bias = self._array("bias")
        given.append(self._constant("bias", bias.reshape(-1, *ones) if form == "Xnor" else bias))
        attributes: dict[str, Any] = {"shape": self.levels.shape}
        if kind == "Conv":
            attributes |= geometry(layer.attributes, self.levels.ndim - 2)
        node = replace_node(last, define(self.model, form, kind), given, attributes)
        node.domain, node.name = DOMAIN, layer.node

    def _threshold(self) -> ir.Value:
        limit = self._array("shift") * self._array("width")
        ones = (1,) * (self.levels.ndim - 2) if self.layer.kind == "Conv" else ()
        return self._constant("threshold", limit.reshape(-1, *ones))

    def _half(self, part: str, *shape: int) -> ir.Value:
        array = self._array(part).astype(np.float16)
        return self._constant(part, array.reshape(shape) if shape else array)

    def _array(self, part: str) -> Array:
        tensor = self.graph.initializers[getattr(self.layer, part)].const_value
        assert tensor is not None
        return tensor.numpy()

    def _constant(self, part: str, array: Array) -> ir.Value:
        self.bytes += array.nbytes
        return add_initializer(self.graph, f"{self.layer.node}_{part}", array)

    def _put(self, before: ir.Node, op: str, inputs: Any, **attributes: Any) -> ir.Value:
        node = ir.node(op, inputs, attributes=attributes)
        node.name = fresh_name(self.graph, f"{self.layer.node}_{op.lower()}")
        node.outputs[0].name = node.name
        self.graph.insert_before(before, node)
        return node.outputs[0]


def geometry(attributes: dict[str, Any], rank: int) -> dict[str, Any]:
    """All attributes of a Conv that its function needs."""
    defaults = {"strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank, "group": 1}
    return {name: attributes.get(name) or defaults[name] for name in GEOMETRY}
