"""onnx_ir graph to layers: fixed shapes, constants apart, views without code."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_native.kernels import find_kernel
from infer_native.program import C_TYPES, Layer, Program, Stored, Tensor
from infer_runtime.errors import InferError, ModelError, UnsupportedOpError
from infer_runtime.evaluate import run_node
from infer_runtime.registry import standard_domain
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Sequence

VIEWS = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout")


def lower(model: ir.Model) -> Program:
    """Layers of a prepared model.

    Raises:
        UnsupportedOpError: an operator or a type without kernel, all operators in one error.
        ModelError: a shape that depends on data.

    """
    return _Lowering(model).run()


class _Lowering:
    """The tensors of the values met so far."""

    def __init__(self, model: ir.Model) -> None:
        self._graph, self._opset = model.graph, opset(model)
        self._tensors: dict[ir.Value, Tensor] = {}
        self._layers: list[Layer] = []

    def run(self) -> Program:
        self._check_operators()
        inputs = [v for v in self._graph.inputs if not v.is_initializer()]
        for value in inputs:
            self._tensors[value] = _tensor(value, tuple(value.shape or ()))  # type: ignore[arg-type]
        for node in self._graph:
            self._node(node)
        outputs = [self._of(v) for v in self._graph.outputs]
        return Program(
            [self._tensors[v] for v in inputs],
            [t for t in outputs if t is not None],
            self._layers,
            [v.name or "" for v in self._graph.outputs],
            self._opset,
        )

    def _check_operators(self) -> None:
        missing: dict[str, str] = {}
        for node in self._graph:
            domain = standard_domain(node.domain)
            known = node.op_type in (*VIEWS, "Constant") or find_kernel(node.op_type) is not None
            given = [v for v in node.inputs if v is not None]
            constant = bool(given) and all(v.is_initializer() for v in given)
            if (domain or not known) and not (constant and not domain):
                label = f"{domain}::{node.op_type}" if domain else node.op_type
                missing.setdefault(label, node.name or "?")
        if missing:
            found = ", ".join(f"{op} (node {name})" for op, name in missing.items())
            raise UnsupportedOpError(f"the C emitter has no kernel for {found}")

    def _node(self, node: ir.Node) -> None:
        inputs = [None if v is None else self._of(v) for v in node.inputs]
        label = node.name or node.op_type
        values = [None if t is None else t.root.data for t in inputs]
        known = all(t is None or v is not None for t, v in zip(inputs, values, strict=True))
        if known and (inputs or node.op_type == "Constant"):
            self._fold(node, inputs)
            return
        shapes = self._shapes(node, inputs)
        outputs = [
            _tensor(v, s) if v.name and (v.uses() or v.is_graph_output()) else None
            for v, s in zip(node.outputs, shapes, strict=True)
        ]
        for value, tensor in zip(node.outputs, outputs, strict=True):
            if tensor is not None:
                self._tensors[value] = tensor
        attrs = {name: _attribute(a) for name, a in node.attributes.items()}
        layer = Layer(node.op_type, label, inputs, outputs, attrs)
        if node.op_type in VIEWS:
            _make_view(layer)
        else:
            self._layers.append(layer)

    def _fold(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        arrays = [None if t is None else _data(t) for t in inputs]
        for value, array in zip(node.outputs, run_node(node, arrays, self._opset), strict=False):
            self._tensors[value] = _constant(value.name or "", np.asarray(array))
        if node.op_type == "DequantizeLinear":
            axis = node.attributes.get_int("axis", 1)
            self._tensors[node.outputs[0]].stored = Stored(tuple(inputs), axis)

    def _of(self, value: ir.Value) -> Tensor | None:
        if value not in self._tensors:
            if value.const_value is None:
                return None
            self._tensors[value] = _constant(value.name or "", value.const_value.numpy())
        return self._tensors[value]

    def _shapes(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> list[tuple[int, ...]]:
        """Of the outputs: inferred, or those of one run of the node on zeros.

        The shape of no operator with a kernel depends on the values of inputs that may vary.
        """
        found = [_static(v) for v in node.outputs]
        if all(s is not None for s, v in zip(found, node.outputs, strict=True) if v.name):
            return [s or () for s in found]
        trial = [None if t is None else _trial(t) for t in inputs]
        try:
            results = run_node(node, trial, self._opset)
        except InferError as error:
            raise ModelError(
                f"node {node.name or '?'} ({node.op_type}): its shape is not fixed: {error}"
            ) from error
        shapes = [tuple(np.shape(r)) for r in results]
        return shapes + [()] * (len(node.outputs) - len(shapes))


def _make_view(layer: Layer) -> None:
    """The output is the memory of the input; what says the shape must be a constant."""
    if layer.op == "Dropout":
        training = layer.constant(2)
        if layer.has_output(1) or (training is not None and training.any()):
            raise layer.refused("the mask and the training mode have no kernel")
    else:
        layer.constant(1)
    source, view = layer.input(0), layer.output()
    if prod(source.shape) != prod(view.shape):
        raise ModelError(
            f"node {layer.name} ({layer.op}): {list(source.shape)} cannot be {list(view.shape)}"
        )
    view.view_of = source


def _data(tensor: Tensor) -> Any:
    assert tensor.root.data is not None
    return tensor.root.data.reshape(tensor.shape)


def _trial(tensor: Tensor) -> Any:
    data = tensor.root.data
    return np.zeros(tensor.shape, tensor.dtype) if data is None else data.reshape(tensor.shape)


def _static(value: ir.Value) -> tuple[int, ...] | None:
    if value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(n) for n in value.shape.numpy())


def _tensor(value: ir.Value, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value.type, (ir.TensorType, type(None))):
        raise UnsupportedOpError(f"value {value.name!r} is no tensor: the C emitter has only those")
    if value.dtype is None:
        raise ModelError(f"value {value.name!r} has no type")
    dtype = np.dtype(value.dtype.numpy())
    _check_type(value.name or "", dtype)
    return Tensor(value.name or "", shape, dtype)


def _constant(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """Constants of other types are refused where a kernel reads them."""
    return Tensor(name, array.shape, array.dtype, np.ascontiguousarray(array).reshape(array.shape))


def _check_type(name: str, dtype: np.dtype[Any]) -> None:
    if dtype.name not in C_TYPES:
        raise UnsupportedOpError(
            f"value {name!r} is {dtype.name}: the C emitter has {', '.join(C_TYPES)}"
        )


def _attribute(attribute: ir.Attr) -> Any:
    kind = attribute.type
    if kind == ir.AttributeType.GRAPH:
        return attribute
    if kind == ir.AttributeType.STRING:
        return attribute.as_string()
    if kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS):
        return list(attribute.value)
    if kind == ir.AttributeType.STRINGS:
        return list(attribute.as_strings())
    return attribute.value
