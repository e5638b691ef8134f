"""What is emitted: tensors with places, and the layers that fill them, in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from infer_runtime.errors import UnsupportedOpError

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

C_TYPES = {
    "float32": "float", "float64": "double", "int8": "int8_t", "int16": "int16_t",
    "int32": "int32_t", "int64": "int64_t", "uint8": "uint8_t", "uint16": "uint16_t",
    "uint32": "uint32_t", "uint64": "uint64_t", "bool": "uint8_t",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """How a constant lies in the file: the inputs and the axis of its DequantizeLinear."""

    inputs: tuple[Tensor | None, ...]
    axis: int


@dataclass(eq=False)
class Tensor:
    """A value: `shape` is how it lies in memory, row-major.

    A blocked tensor of logical shape [N, C, H, W] lies as [N, ceil(C / block), H, W, block]; its
    last channels may be padding. A view has the memory of another tensor under a shape of its own.
    """

    name: str
    shape: Shape
    dtype: np.dtype[Any]
    data: Array | None = None
    view_of: Tensor | None = None
    block: int = 0
    channels: int = 0
    stored: Stored | None = None

    def __repr__(self) -> str:
        return f"Tensor({self.name!r}, {self.shape}, {self.dtype})"

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.size * self.dtype.itemsize

    @property
    def ctype(self) -> str:
        """Type of an element in C."""
        if self.dtype.name not in C_TYPES:
            raise UnsupportedOpError(
                f"value {self.name!r} is {self.dtype.name}: the C emitter has {', '.join(C_TYPES)}"
            )
        return C_TYPES[self.dtype.name]

    @property
    def root(self) -> Tensor:
        """The tensor whose memory this one is."""
        return self if self.view_of is None else self.view_of.root

    @property
    def is_float(self) -> bool:
        """float32 or float64."""
        return self.dtype.kind == "f"


@dataclass(eq=False)
class Layer:
    """One call of a kernel; absent optional inputs and outputs are None."""

    op: str
    name: str
    inputs: list[Tensor | None]
    outputs: list[Tensor | None]
    attrs: dict[str, Any] = field(default_factory=dict)

    def input(self, index: int) -> Tensor:
        """An input that the operator always has."""
        tensor = self.optional(index)
        if tensor is None:
            raise self.refused(f"input {index} is missing")
        return tensor

    def optional(self, index: int) -> Tensor | None:
        """An input that may be absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self, index: int = 0) -> Tensor:
        """An output that is there."""
        tensor = self.outputs[index]
        assert tensor is not None
        return tensor

    def constant(self, index: int) -> Array | None:
        """The data of an input that must be constant where it is given.

        Raises:
            UnsupportedOpError: it is computed at run time.

        """
        tensor = self.optional(index)
        if tensor is None:
            return None
        if tensor.root.data is None:
            raise self.refused(f"input {tensor.name!r} must be a constant")
        return tensor.root.data.reshape(tensor.shape)

    def has_output(self, index: int) -> bool:
        """Does anybody want this output?"""
        return index < len(self.outputs) and self.outputs[index] is not None

    def refused(self, reason: str) -> UnsupportedOpError:
        """An error that names the node."""
        return UnsupportedOpError(f"node {self.name!r} ({self.op}): the C emitter: {reason}")


@dataclass
class Program:
    """A whole model: inputs and outputs in order, with plain layout."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    layers: list[Layer]
    names: list[str] = field(default_factory=list)
    opset: int = 20

    def users(self) -> dict[Tensor, list[Layer]]:
        """Layers by the tensor that they read; views count as what they are views of."""
        found: dict[Tensor, list[Layer]] = {}
        for layer in self.layers:
            for tensor in layer.inputs:
                if tensor is not None:
                    found.setdefault(tensor.root, []).append(layer)
        return found

    def producers(self) -> dict[Tensor, Layer]:
        """The layer that fills each tensor."""
        return {t.root: layer for layer in self.layers for t in layer.outputs if t is not None}


def like(tensor: Tensor, name: str, shape: Shape | None = None) -> Tensor:
    """A new tensor of the same type."""
    return Tensor(name, tensor.shape if shape is None else shape, tensor.dtype)


def constant_tensor(name: str, array: Array) -> Tensor:
    """A tensor of the weights."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    return Tensor(name, array.shape, array.dtype, array)
