"""Variables: what a model remembers becomes inputs and outputs of the graph.

A state input has its initial value as its default, so that a caller who does not know of it gets
the first step; a streaming caller feeds each state output back into its input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.names import DTYPES

if TYPE_CHECKING:
    from infer_tool.importers.tflite.builder import Builder
    from infer_tool.importers.tflite.flatbuffer import Array
    from infer_tool.importers.tflite.schema import Tensor

LARGEST = 1 << 28  # elements of a variable without a value in the file


@dataclass
class State:
    """One variable: its input, and its value after what was imported so far."""

    input: ir.Value
    now: ir.Value
    initial: Array


class States:
    """All variables of a model, by name."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self.initial: dict[str, Array] = {}  # what CALL_ONCE assigns
        self.is_initialising = False
        self.found: dict[str, State] = {}

    def read(self, name: str, tensor: Tensor) -> ir.Value:
        """The value of a variable now."""
        return self._state(name, tensor).now

    def assign(self, name: str, tensor: Tensor, value: ir.Value) -> None:
        """Give a variable another value."""
        self._state(name, tensor).now = value

    def variable_tensor(self, tensor: Tensor) -> ir.Value:
        """A tensor that keeps its value from one run to the next, and starts as zero."""
        return self.read(variable_name(tensor), tensor)

    def _state(self, name: str, tensor: Tensor) -> State:
        if name not in self.found:
            initial = self.initial.get(name)
            if initial is None:
                initial = _zeros(tensor)
            value = ir.Value(
                name=self._builder.name(f"state_in/{name}"),
                shape=ir.Shape(initial.shape),
                type=ir.TensorType(DTYPES[tensor.type]),
            )
            self.found[name] = State(value, value, initial)
        return self.found[name]


def variable_name(tensor: Tensor) -> str:
    """The name of the state of a variable tensor."""
    return tensor.name or f"tensor_{tensor.index}"


def _zeros(tensor: Tensor) -> Array:
    if tensor.type not in DTYPES or tensor.type in ("RESOURCE", "COMPLEX64"):
        raise ModelError(f"variable {tensor.name!r} has type {tensor.type}")
    if np.prod(tensor.shape, dtype=np.float64) > LARGEST:
        raise ModelError(f"variable {tensor.name!r} has shape {list(tensor.shape)}")
    zero = 0
    if tensor.quantisation is not None and len(tensor.quantisation.zero_point):
        zero = int(tensor.quantisation.zero_point[0])
    return np.full(tensor.shape, zero, DTYPES[tensor.type].numpy())
