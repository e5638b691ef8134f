"""Operators that only move numbers, between DequantizeLinear and QuantizeLinear, move the bytes.

Given:  y = Q(Transpose(DQ(x)))
Result: y = Transpose(x), and a table of 256 bytes where the scales differ

A MaxPool chooses the same element before and after rounding, which keeps the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_native.fuse import remove_unused
from infer_native.integer import parameters
from infer_native.kernels.elementwise import MAPS
from infer_native.program import Layer, Tensor, constant_tensor
from infer_native.tables import quantised, requantised, same

if TYPE_CHECKING:
    from infer_native.integer import Scaled
    from infer_native.program import Program

MOVES = ("Transpose", "Slice", "Concat", "Resize", "Pad", "MaxPool")


def fuse_moves(program: Program) -> None:
    """Rewrite every such operator that only a QuantizeLinear reads."""
    found = _Moves(program)
    program.layers = [new for layer in program.layers for new in found.layers(layer)]
    remove_unused(program)


@dataclass
class _Moves:
    program: Program

    def __post_init__(self) -> None:
        self._users, self._producers = self.program.users(), self.program.producers()
        self._kept = {t.root for t in self.program.outputs}
        self._gone: set[int] = set()

    def layers(self, layer: Layer) -> list[Layer]:
        """What stands for a layer: itself, its form on bytes, or nothing."""
        if id(layer) in self._gone:
            return []
        if layer.op not in MOVES or layer.output().root in self._kept or layer.has_output(1):
            return [layer]
        readers = self._users.get(layer.output().root, [])
        if len(readers) != 1 or readers[0].op != "QuantizeLinear":
            return [layer]
        last = readers[0]
        target = parameters(last, last.output())
        if last.input(0) is not layer.output() or target is None:
            return [layer]
        made = self._bytes(layer, target) or self._earlier(layer, last, target)
        if made is None:
            return [layer]
        self._gone.add(id(last))
        return made

    def _earlier(self, layer: Layer, last: Layer, target: Scaled) -> list[Layer] | None:
        """A MaxPool of a chain's result: rounded first, so that the chain ends in bytes."""
        x = layer.input(0)
        producer = self._producers.get(x)
        if layer.op != "MaxPool" or producer is None or producer.op not in MAPS:
            return None
        if target.tensor.dtype != np.uint8 or len(self._users[x]) != 1 or x in self._kept:
            return None
        rounded = Tensor(f"{x.name}_bytes", x.shape, target.tensor.dtype)
        first = Layer("QuantizeLinear", layer.name, [x, *last.inputs[1:]], [rounded], last.attrs)
        return [first, Layer(layer.op, layer.name, [rounded], [target.tensor], layer.attrs)]

    def _bytes(self, layer: Layer, target: Scaled) -> list[Layer] | None:
        data = len(layer.inputs) if layer.op == "Concat" else 1
        sources = [self._source(t) for t in layer.inputs[:data]]
        rest = self._others(layer, sources[0], target)
        if rest is None or any(s is None or s.tensor.dtype != np.uint8 for s in sources):
            return None
        if target.tensor.dtype != np.uint8:
            return None
        given = [s for s in sources if s is not None]
        after = layer.op != "Pad" or same(given[0], target)
        if after and all(same(s, given[0]) for s in given):
            moved = Tensor(f"{layer.name}_bytes", target.tensor.shape, target.tensor.dtype)
            result = target.tensor if same(given[0], target) else moved
            first = Layer(layer.op, layer.name, [*(s.tensor for s in given), *rest], [result])
            first.attrs = layer.attrs
            if result is target.tensor:
                return [first]
            return [first, requantised(layer.name, moved, given[0], target)]
        made, tensors = [], []
        for s in given:
            tensors.append(s.tensor)
            if not same(s, target):
                tensors[-1] = Tensor(f"{layer.name}_bytes", s.tensor.shape, s.tensor.dtype)
                made.append(requantised(layer.name, s.tensor, s, target, tensors[-1]))
        last = Layer(layer.op, layer.name, [*tensors, *rest], [target.tensor], layer.attrs)
        return [*made, last]

    def _source(self, tensor: Tensor | None) -> Scaled | None:
        """The bytes behind a dequantised tensor that is seen under its own shape."""
        layer = None if tensor is None else self._producers.get(tensor)
        if layer is None or layer.op != "DequantizeLinear":
            return None
        return parameters(layer, layer.input(0))

    def _others(
        self, layer: Layer, source: Scaled | None, target: Scaled
    ) -> list[Tensor | None] | None:
        """Inputs behind the data; the border of a Pad as a byte. None where that cannot be."""
        if layer.op == "Concat":
            return []
        if layer.op == "Resize" and layer.attrs.get("mode", "nearest") != "nearest":
            return None
        rest = list(layer.inputs[1:])
        if layer.op != "Pad" or source is None:
            return rest
        if layer.attrs.get("mode", "constant") != "constant":
            return rest
        value = layer.optional(2)
        if value is not None and value.root.data is None:
            return None
        number = np.float32(0) if value is None or value.root.data is None else value.root.data
        byte = quantised(np.asarray(number, np.float32).reshape(()), target)
        border = constant_tensor(f"{layer.name}_border", byte)
        return [rest[0], border, *rest[2:]]
