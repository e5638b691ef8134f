"""Variables: what a model remembers becomes inputs and outputs of the graph.

A state input has its initial value as its default (an initialiser of the same name), so that a
caller who does not feed it gets the first step; a streaming caller feeds each state output back
into its input. The metadata of the model says which belong together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError, UnsupportedOpError
from infer_tool.importers.normalise import STAMP
from infer_tool.importers.tflite.builder import MAX_ELEMENTS
from infer_tool.importers.tflite.names import DTYPES

if TYPE_CHECKING:
    from infer_tool.importers.tflite.builder import Builder
    from infer_tool.importers.tflite.flatbuffer import Array
    from infer_tool.importers.tflite.schema import File, Operator, Subgraph, Tensor

STATES = f"{STAMP}states"  # metadata: a JSON object from each state input to its output
STATE_IN, STATE_OUT = "state_in/", "state_out/"


@dataclass
class State:
    """One variable: its input, and its value after what was imported so far."""

    input: ir.Value
    now: ir.Value
    initial: Array
    tensor: int = -1  # of the main subgraph, that holds its value at the end


class States:
    """All variables of a model, by name."""

    def __init__(self, builder: Builder, file: File) -> None:
        self._builder = builder
        self._assigned = _assigned(file)
        self.initial: dict[str, Array] = {}  # what CALL_ONCE assigns
        self.is_initialising = False
        self.found: dict[str, State] = {}

    def read(self, name: str, tensor: Tensor) -> ir.Value:
        """The value of a variable now; a constant where nothing ever changes it."""
        if name not in self._assigned:
            return self._builder.constant(self._first(name), name=name)
        return self._state(name, tensor).now

    def assign(self, name: str, tensor: Tensor, value: ir.Value) -> None:
        """Give a variable another value."""
        state = self._state(name, tensor)
        state.now, state.tensor = value, tensor.index

    def read_tensor(self, tensor: Tensor) -> ir.Value:
        """A tensor that keeps its value from one run to the next, and starts as zero."""
        self.initial.setdefault(_name(tensor), _zeros(tensor))
        return self._state(_name(tensor), tensor).now

    def assign_tensor(self, tensor: Tensor, value: ir.Value) -> None:
        """Give such a tensor another value."""
        self.assign(_name(tensor), tensor, value)

    def _state(self, name: str, tensor: Tensor) -> State:
        if name not in self.found:
            initial = self._first(name)
            sizes = tensor.signature if len(tensor.signature) == initial.ndim else initial.shape
            value = ir.Value(
                name=self._builder.name(f"{STATE_IN}{name}"),
                shape=ir.Shape([s if s >= 0 else "batch" for s in sizes]),
                type=ir.TensorType(ir.DataType.from_numpy(initial.dtype)),
            )
            self.found[name] = State(value, value, initial)
        return self.found[name]

    def _first(self, name: str) -> Array:
        if name not in self.initial:
            raise ModelError(
                f"variable {name!r} has no first value in the file; convert the model from a "
                "SavedModel, which holds its variables"
            )
        return self.initial[name]


def _assigned(file: File) -> set[str]:
    """Variables that are assigned outside of the subgraphs that run once.

    Where a handle comes from outside of a subgraph, any of them may be.
    """
    once = {o.options.integer("subgraph") for o in _operators(file, "CALL_ONCE")}
    names = {
        variable_name(o, s)
        for s in file.subgraphs
        for o in s.operators
        if o.name == "VAR_HANDLE" and o.outputs
    }
    found: set[str] = set()
    for subgraph in file.subgraphs:
        if subgraph.index in once:
            continue
        handles = {
            o.outputs[0]: variable_name(o, subgraph)
            for o in subgraph.operators
            if o.name == "VAR_HANDLE" and o.outputs
        }
        for operator in subgraph.operators:
            if operator.name == "ASSIGN_VARIABLE" and operator.inputs:
                name = handles.get(operator.inputs[0])
                found |= names if name is None else {name}
    return found


def _operators(file: File, name: str) -> list[Operator]:
    return [o for s in file.subgraphs for o in s.operators if o.name == name]


def variable_name(operator: Operator, subgraph: Subgraph) -> str:
    """The name of the variable of a VAR_HANDLE."""
    shared = operator.options.text("name")
    return shared or subgraph.tensors[operator.outputs[0]].name


def _name(tensor: Tensor) -> str:
    """The name of the state of a variable tensor."""
    return tensor.name or f"tensor_{tensor.index}"


def _zeros(tensor: Tensor) -> Array:
    name = _name(tensor)
    if tensor.type not in DTYPES or tensor.type in ("RESOURCE", "COMPLEX64"):
        raise UnsupportedOpError(f"variable {name!r} has type {tensor.type}")
    if np.prod(tensor.shape, dtype=np.float64) > MAX_ELEMENTS:
        raise ModelError(f"variable {name!r} has shape {list(tensor.shape)}")
    zero = 0 if tensor.quantisation is None else int(tensor.quantisation.zero_point[0])
    return np.full(tensor.shape, zero, DTYPES[tensor.type].numpy())
