"""Emits ONNX nodes one by one, and knows at once what can be known of their results.

TFLite files hold shapes, but behind operators whose result depends on data, or on the batch, only
placeholders. So shapes are inferred here while the graph grows, and small integer vectors that
follow from shapes become constants.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_runtime.evaluate import run_node
from infer_tool.importers.names import Names
from passes.symbolic import node_elements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from infer_tool.importers.tflite.flatbuffer import Array
    from passes.match import Dims

LARGEST_FOLD = 4096  # elements; what is larger is folded by the passes, which look at memory
MAX_ELEMENTS = 1 << 28  # of one value; LiteRT counts bytes in 31 bits
MAX_NODES = 1_000_000  # subgraphs that call each other unfold exponentially
# Their output is the shape that an input holds.
_SHAPED_BY = {"Reshape": 1, "Expand": 1, "ConstantOfShape": 0}
_QUANTISED = ("QuantizeLinear", "DequantizeLinear")


class Builder:
    """The graph that grows, and the graphs inside it.

    Constants live in the main graph, where subgraphs see them; nodes go to the graph that was
    entered last.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="tflite")
        self._open = [self.graph]
        self._names = Names()
        self._constants: dict[Any, ir.Value] = {}
        self._elements: dict[int, Dims] = {}
        self._count = 0

    def node(
        self, op_type: str, inputs: Sequence[ir.Value | None], outputs: int = 1, **attributes: Any
    ) -> list[ir.Value]:
        """Append a node, or return constants where it only computes with small ones.

        Raises:
            ModelError: the standard's shape inference finds that it cannot be.

        """
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)
        for value in node.outputs:
            value.name = self.name(op_type.lower())
        self._infer(node)
        folded = None if op_type in _QUANTISED else self._folded(node)
        if folded is not None:
            for i in range(len(node.inputs)):
                node.replace_input_with(i, None)
            return folded
        self._append(node)
        return list(node.outputs)

    def one(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """`node` with a single output."""
        return self.node(op_type, inputs, **attributes)[0]

    def constant(self, array: Any, dtype: Any = None, name: str = "") -> ir.Value:
        """An initialiser; small equal ones are one."""
        value = np.asarray(array, dtype)
        key = (value.dtype.str, value.shape, value.tobytes()) if value.size <= 16 else None
        if key is not None and key in self._constants:
            return self._constants[key]
        tensor = ir.tensor(np.require(value, requirements=["C", "A"]).reshape(value.shape))
        made = ir.Value(
            name=self.name(name or "constant"),
            shape=ir.Shape(value.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        tensor.name = made.name
        self.graph.register_initializer(made)
        if key is not None:
            self._constants[key] = made
        return made

    def ints(self, *values: int) -> ir.Value:
        """A constant vector of int64."""
        return self.constant(np.array(values, np.int64))

    def tensor(self, array: Array) -> ir.TensorProtocol:
        """A tensor for an attribute."""
        return ir.tensor(array)

    def name(self, base: str) -> str:
        """A name that nobody has."""
        return self._names.claim(base)

    def inside(
        self, inputs: Sequence[ir.Value], body: Callable[[], Sequence[ir.Value]]
    ) -> ir.Graph:
        """A subgraph with these inputs and the outputs that `body` returns while it emits."""
        graph = ir.Graph(list(inputs), [], nodes=[], name=self.name("body"))
        self._open.append(graph)
        try:
            outputs = [self.copy(value) for value in body()]
        finally:
            self._open.pop()
        graph.outputs.extend(outputs)
        return graph

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Emit into the main graph: what subgraphs compute from constants is computed once."""
        inner, self._open = self._open, self._open[:1]
        try:
            yield
        finally:
            self._open = inner

    def copy(self, value: ir.Value) -> ir.Value:
        """The same value under a name of its own."""
        node = ir.node("Identity", [value])
        (output,) = node.outputs
        output.name, output.shape, output.type = self.name("copy"), value.shape, value.type
        self._append(node)
        return output

    def elements(self, value: ir.Value) -> Dims | None:
        """What is known of the elements of a small integer vector."""
        if id(value) in self._elements:
            return self._elements[id(value)]
        known = array_of(value)
        if known is None or known.dtype.kind not in "iu" or known.size > LARGEST_FOLD:
            return None
        return tuple(int(v) for v in known.reshape(-1))

    def _append(self, node: ir.Node) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise ModelError(f"its subgraphs unfold into more than {MAX_NODES} nodes")
        self._open[-1].append(node)

    def _folded(self, node: ir.Node) -> list[ir.Value] | None:
        """Constants in the place of a node, where all that it computes with is known."""
        arrays = [None if v is None else array_of(v) for v in node.inputs]
        given = [a for a, v in zip(arrays, node.inputs, strict=True) if v is not None]
        known = [a for a in given if a is not None]
        if known and len(known) == len(given) and sum(a.size for a in known) <= LARGEST_FOLD:
            return self._computed(node, arrays)
        elements = node_elements(node, self._elements)
        if elements is None:
            return None
        (value,) = node.outputs
        numbers = [e for e in elements if isinstance(e, int)]
        is_flat = value.shape is not None and len(value.shape) < 2
        if len(numbers) == len(elements) and value.dtype is not None and is_flat:
            shape = (len(elements),) if value.shape else ()
            return [self.constant(np.array(numbers, value.dtype.numpy()).reshape(shape))]
        self._elements[id(value)] = elements
        return None

    def _computed(self, node: ir.Node, arrays: list[Array | None]) -> list[ir.Value] | None:
        if any(not _is_small(value) for value in node.outputs):
            return None
        results = run_node(node, arrays, self.opset)
        return [self.constant(np.asarray(array)) for array in results]

    def _infer(self, node: ir.Node) -> None:
        """Types and shapes of the outputs."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        types, data = {}, {}
        for value in node.inputs:
            if value is None or value.name is None or value.type is None:
                continue
            types[value.name] = ir.serde.serialize_type(value.type)
            if value.shape is not None:
                ir.serde.serialize_shape_into(types[value.name], value.shape)
            array = array_of(value)
            if array is not None and array.size <= LARGEST_FOLD:
                data[value.name] = onnx.numpy_helper.from_array(array, value.name)
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, ir.to_proto(node), types, data,
                opset_imports=[onnx.helper.make_opsetid("", self.opset)], ir_version=10,
            )  # fmt: skip
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            why = str(error).strip().splitlines()[-1]
            raise ModelError(f"{node.op_type} does not fit its inputs: {why}") from error
        for value in node.outputs:
            if value.name in found:
                proto = found[value.name]
                value.type = ir.serde.deserialize_type_proto_for_type(proto)
                value.shape = ir.serde.deserialize_type_proto_for_shape(proto)
                check_size(value)
        self._shape_from_elements(node)

    def _shape_from_elements(self, node: ir.Node) -> None:
        """A shape that is computed from dimensions keeps their names."""
        slot = _SHAPED_BY.get(node.op_type)
        target = node.inputs[slot] if slot is not None and len(node.inputs) > slot else None
        wanted = None if target is None else self.elements(target)
        (value,) = node.outputs[:1]
        if wanted is None or (node.op_type == "Expand" and value.shape is not None):
            return
        known = value.shape or ir.Shape([None] * len(wanted))
        if len(known) == len(wanted):
            value.shape = ir.Shape([
                w if isinstance(k, ir.SymbolicDim) and k.value is None and w not in (0, -1) else k
                for k, w in zip(known, wanted, strict=True)
            ])  # fmt: skip


def check_size(value: ir.Value) -> None:
    """Refuse what no machine of today computes, before anything is as large.

    Raises:
        ModelError: the value has too many elements, dynamic dimensions counted as one.

    """
    sizes = [d for d in value.shape or () if isinstance(d, int)]
    if prod(sizes) > MAX_ELEMENTS:
        raise ModelError(f"{value.name!r} has {prod(sizes)} elements, more than {MAX_ELEMENTS}")


def array_of(value: ir.Value) -> Array | None:
    """The array of a constant of this import; None for what is computed or may be fed."""
    if value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def _is_small(value: ir.Value) -> bool:
    """Small constants may have a large result: it is looked at before it is computed."""
    sizes = value.shape
    if sizes is None or not all(isinstance(d, int) for d in sizes):
        return False
    return prod(d for d in sizes if isinstance(d, int)) <= LARGEST_FOLD
