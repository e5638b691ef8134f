"""One subgraph that is being imported: which value each of its tensors has."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import ModelError, UnsupportedOpError
from infer_tool.importers.tflite.call import Call
from infer_tool.importers.tflite.constants import constant
from infer_tool.importers.tflite.names import DTYPES
from infer_tool.importers.tflite.registry import handlers

if TYPE_CHECKING:
    from infer_tool.importers.tflite.builder import Builder
    from infer_tool.importers.tflite.schema import File, Operator, Subgraph, Tensor
    from infer_tool.importers.tflite.states import States

# What is imported with regard to the last axis of complex numbers.
_COMPLEX = ("CAST", "COMPLEX_ABS", "EXPAND_DIMS", "IMAG", "REAL", "RESHAPE", "SHAPE", "SQUEEZE")


@dataclass
class Shared:
    """What all subgraphs of a file share."""

    file: File
    builder: Builder
    states: States
    running: list[int] = field(default_factory=list)  # subgraphs that are being imported


class Scope:
    """The tensors of one subgraph, in one place where it is used."""

    def __init__(self, shared: Shared, index: int) -> None:
        """Open a subgraph.

        Raises:
            ModelError: there is none of this number.

        """
        if not 0 <= index < len(shared.file.subgraphs):
            raise ModelError(f"subgraph {index} is asked for, there are {_count(shared)}")
        self.shared = shared
        self.subgraph: Subgraph = shared.file.subgraphs[index]
        self.handles: dict[int, str] = {}  # tensors that stand for a variable
        self.is_inner = False  # a branch, a body, or called by another subgraph
        self._values: dict[int, ir.Value] = {}
        self._named: set[int] = set()

    def run(self) -> None:
        """Import all operators.

        Raises:
            ModelError: the subgraph calls itself.

        """
        running = self.shared.running
        if self.subgraph.index in running:
            raise ModelError(f"subgraph {self.subgraph.index} calls itself")
        running.append(self.subgraph.index)
        for operator in self.subgraph.operators:
            self._check_complex(operator)
            handlers()[operator.name](Call(self, operator))
        running.pop()

    def _check_complex(self, operator: Operator) -> None:
        """The last axis of a complex tensor is one more than the operator knows of."""
        inputs = [self.subgraph.tensors[i] for i in operator.inputs if i >= 0]
        if operator.name not in _COMPLEX and any(t.type == "COMPLEX64" for t in inputs):
            raise UnsupportedOpError(
                f"{operator.name} (operator {operator.index} of subgraph {self.subgraph.index}) "
                "of complex numbers"
            )

    def value(self, tensor: Tensor) -> ir.Value:
        """The value of a tensor, in its stored type.

        Raises:
            ModelError: nothing computes it, and the file holds no constant for it.

        """
        if tensor.index not in self._values:
            self._values[tensor.index] = self._constant(tensor)
        return self._values[tensor.index]

    def _constant(self, tensor: Tensor) -> ir.Value:
        build = self.shared.builder
        if tensor.is_variable:
            return self.shared.states.read_tensor(tensor)
        array = constant(self.shared.file, tensor)
        if array is None and prod(tensor.shape) == 0 and tensor.type in DTYPES:
            array = np.zeros(tensor.shape, DTYPES[tensor.type].numpy())
        if array is None:
            raise ModelError(
                f"tensor {tensor.index} ({tensor.name!r}) of subgraph {self.subgraph.index} is "
                "computed by nobody before it is used"
            )
        return build.constant(array, name=tensor.name)

    def bind(self, tensor: Tensor, value: ir.Value) -> None:
        """Say what a tensor is; a value takes the name of the first tensor that it is."""
        fresh = value.producer() is not None and id(value) not in self._named
        if fresh and tensor.name.isprintable() and tensor.name:
            value.name = self.shared.builder.name(tensor.name)
        self._named.add(id(value))
        self._values[tensor.index] = value
        _describe(tensor, value)

    def forget(self, tensor: Tensor) -> None:
        """A variable has another value when it is read next."""
        self._values.pop(tensor.index, None)

    def feed(self, tensor: Tensor, value: ir.Value) -> None:
        """Say what an input is."""
        self._values[tensor.index] = value
        self._named.add(id(value))

    def handle(self, tensor: Tensor) -> str:
        """The name of the variable that a tensor stands for.

        Raises:
            ModelError: it stands for none.

        """
        if tensor.index not in self.handles:
            raise ModelError(f"tensor {tensor.index} ({tensor.name!r}) stands for no variable")
        return self.handles[tensor.index]

    def tensor(self, index: int) -> Tensor:
        """What the file says about a tensor."""
        return self.subgraph.tensors[index]


def _describe(tensor: Tensor, value: ir.Value) -> None:
    """Take dimensions from the file where nothing better is known.

    Where the file has two shapes, the second one says which dimensions are real.
    """
    known = tensor.signature or (tensor.shape if tensor.has_rank else ())
    if tensor.type == "COMPLEX64" or not known or value.producer() is None:
        return
    if value.shape is None:
        value.shape = ir.Shape([d if d >= 0 else None for d in known])
    elif len(value.shape) == len(known):
        value.shape = ir.Shape([
            k if isinstance(d, ir.SymbolicDim) and d.value is None and k >= 0 else d
            for d, k in zip(value.shape, known, strict=True)
        ])  # fmt: skip


def _count(shared: Shared) -> int:
    return len(shared.file.subgraphs)
