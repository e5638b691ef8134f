"""One operator that is being imported: what its handler asks, and where its results go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import ModelError, UnsupportedOpError
from infer_tool.importers.tflite.builder import array_of
from infer_tool.importers.tflite.names import DTYPES
from infer_tool.importers.tflite.quantised import dequantise, is_quantised, quantise, same

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

    from infer_tool.importers.tflite.builder import Builder
    from infer_tool.importers.tflite.flatbuffer import Array
    from infer_tool.importers.tflite.schema import Operator, Tensor
    from infer_tool.importers.tflite.scope import Scope

_RELU, _TANH = 1, 4  # of ActivationFunctionType
_BOUNDS = {2: (-1.0, 1.0), 3: (0.0, 6.0)}


class Call:
    """An operator of a subgraph; slots number its inputs and outputs."""

    def __init__(self, scope: Scope, operator: Operator) -> None:
        self.scope = scope
        self.operator = operator
        self.options = operator.options
        self.build: Builder = scope.shared.builder

    @property
    def inputs(self) -> int:
        """How many inputs are given, the absent ones included."""
        return len(self.operator.inputs)

    @property
    def outputs(self) -> int:
        """How many outputs there are."""
        return len(self.operator.outputs)

    def has(self, slot: int) -> bool:
        """Is this optional input given?"""
        return slot < self.inputs and self.operator.inputs[slot] >= 0

    def tensor(self, slot: int) -> Tensor:
        """What the file says about an input.

        Raises:
            ModelError: the operator has no such input.

        """
        if not self.has(slot):
            raise ModelError(f"{self} lacks input {slot}")
        return self.scope.subgraph.tensors[self.operator.inputs[slot]]

    def result(self, slot: int = 0) -> Tensor:
        """What the file says about an output."""
        if slot >= self.outputs or self.operator.outputs[slot] < 0:
            raise ModelError(f"{self} lacks output {slot}")
        return self.scope.subgraph.tensors[self.operator.outputs[slot]]

    def stored(self, slot: int) -> ir.Value:
        """An input as it is stored: integers where it is quantised."""
        return self.scope.value(self.tensor(slot))

    def real(self, slot: int, perm: Sequence[int] | None = None) -> ir.Value:
        """An input as real numbers, its axes permuted; quantised ones through DequantizeLinear.

        The Transpose comes first: between DequantizeLinear and the operator it would hide from
        engines that they can compute with integers.
        """
        return dequantise(self.build, self.tensor(slot), self.stored(slot), perm)

    def optional(self, slot: int) -> ir.Value | None:
        """`real`, or None where it is not given."""
        return self.real(slot) if self.has(slot) else None

    def put(self, value: ir.Value, slot: int = 0, perm: Sequence[int] | None = None) -> None:
        """Bind a real result to an output, quantised as the file says, then permuted."""
        tensor = self.result(slot)
        stored = quantise(self.build, tensor, value)
        self.bind(self.permuted(stored, perm), slot)

    def bind(self, value: ir.Value, slot: int = 0) -> None:
        """Bind a result that has the stored type of an output already."""
        self.scope.bind(self.result(slot), value)

    def assign_state(self, slot: int, value: ir.Value) -> None:
        """Give a variable tensor the value that it has from now on.

        Raises:
            UnsupportedOpError: inside a branch, loop or call.

        """
        if self.scope.is_inner:
            raise self.unsupported("a state inside a branch, loop or call")
        self.scope.shared.states.assign_tensor(self.tensor(slot), value)
        self.scope.forget(self.tensor(slot))

    def move(
        self, function: Callable[..., ir.Value], slots: Sequence[int] = (0,), output: int = 0
    ) -> None:
        """Bind what only moves values: on stored ones, unless the quantisation changes."""
        result = self.result(output)
        if all(same(self.tensor(slot), result) for slot in slots):
            self.bind(function(*(self.stored(slot) for slot in slots)), output)
        else:
            self.put(function(*(self.real(slot) for slot in slots)), output)

    def move_to_all(self, function: Callable[[ir.Value], Sequence[ir.Value]], slot: int) -> None:
        """`move` for a function with one result for each output."""
        results = [self.result(i) for i in range(self.outputs)]
        if all(same(self.tensor(slot), result) for result in results):
            for i, value in enumerate(function(self.stored(slot))):
                self.bind(value, i)
        else:
            for i, value in enumerate(function(self.real(slot))):
                self.put(value, i)

    def array(self, slot: int) -> Array | None:
        """An input that is known now, in its stored type."""
        return array_of(self.stored(slot)) if self.has(slot) else None

    def known(self, slot: int) -> list[int]:
        """Integers that must be known now.

        Raises:
            UnsupportedOpError: they are computed when the model runs.

        """
        array = self.array(slot)
        if array is None:
            raise UnsupportedOpError(f"{self}: input {slot} must be a constant to be imported")
        return [int(v) for v in array.reshape(-1)]

    def partly(self, slot: int) -> list[int | None]:
        """Integers of a shape; None where they are computed when the model runs.

        Raises:
            UnsupportedOpError: none of them is known, not even how many there are.

        """
        elements = self.build.elements(self.stored(slot))
        if elements is None:
            raise self.unsupported(f"input {slot} must be a constant to be imported")
        return [e if isinstance(e, int) else None for e in elements]

    def int64(self, slot: int) -> ir.Value:
        """Integers in the type that ONNX wants for shapes and axes."""
        array = self.array(slot)
        if array is not None:
            return self.build.constant(array.astype(np.int64))
        return self.cast(self.stored(slot), "INT64")

    def flat(self, value: ir.Value) -> ir.Value:
        """A vector of all elements, of one for a number."""
        return self.emit("Reshape", value, self.build.ints(-1))

    def emit(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """A node with one output."""
        return self.build.one(op_type, *inputs, **attributes)

    def number(self, value: float, like: ir.Value) -> ir.Value:
        """A constant of the type of another value."""
        assert like.dtype is not None
        return self.build.constant(value, like.dtype.numpy())

    def cast(self, value: ir.Value, kind: str) -> ir.Value:
        """Another type, named as TFLite does."""
        if value.dtype == DTYPES[kind]:
            return value
        return self.emit("Cast", value, to=DTYPES[kind].value)

    def permuted(self, value: ir.Value, perm: Sequence[int] | None) -> ir.Value:
        """The axes in another order."""
        return value if perm is None else self.emit("Transpose", value, perm=list(perm))

    def activated(self, value: ir.Value) -> ir.Value:
        """The activation that is fused into the operator.

        Raises:
            UnsupportedOpError: none that ONNX can express.

        """
        return self.activate(value, self.options.integer("activation"))

    def activate(self, value: ir.Value, kind: int) -> ir.Value:
        """One of the activations of the schema."""
        if kind == 0:
            return value
        if kind == _RELU:
            return self.emit("Relu", value)
        if kind in _BOUNDS:
            low, high = _BOUNDS[kind]
            return self.emit("Clip", value, self.number(low, value), self.number(high, value))
        if kind == _TANH:
            return self.emit("Tanh", value)
        raise UnsupportedOpError(f"{self}: fused activation {kind} has no ONNX operator")

    def rank(self, value: ir.Value) -> int:
        """Number of axes.

        Raises:
            UnsupportedOpError: it is not known before the model runs.

        """
        if value.shape is None:
            raise UnsupportedOpError(f"{self}: the rank of {value.name!r} is not known")
        return len(value.shape)

    def sizes(self, value: ir.Value) -> list[int | None]:
        """Dimensions; None where they are not known before the model runs."""
        if value.shape is None:
            raise UnsupportedOpError(f"{self}: the rank of {value.name!r} is not known")
        return [d if isinstance(d, int) else None for d in value.shape]

    def axis(self, value: ir.Value, axis: int) -> int:
        """An axis counted from the front.

        Raises:
            ModelError: there is no such axis.

        """
        rank = self.rank(value)
        if not -rank <= axis < rank:
            raise ModelError(f"{self} names axis {axis} of {rank}")
        return axis % rank

    def is_quantised(self, slot: int = 0) -> bool:
        """Does an input hold quantised integers?"""
        return is_quantised(self.tensor(slot))

    def zero_point(self, slot: int) -> ir.Value:
        """The integer that stands for zero in a quantised input, as a scalar."""
        tensor = self.tensor(slot)
        assert tensor.quantisation is not None
        return self.build.constant(tensor.quantisation.zero_point[0], DTYPES[tensor.type].numpy())

    def unsupported(self, why: str) -> UnsupportedOpError:
        """The error for what has no ONNX form."""
        return UnsupportedOpError(f"{self}: {why}")

    def __str__(self) -> str:
        where = self.scope.subgraph.index
        return f"{self.operator.name} (operator {self.operator.index} of subgraph {where})"
