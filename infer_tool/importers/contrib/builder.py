"""Writing standard nodes in the place of another node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.match import remove_with_unused

if TYPE_CHECKING:
    from collections.abc import Sequence


class Unexpressible(Exception):  # noqa: N818 - no error: the node stays as it is
    """A rule does not cover this node, or not yet: a type or a rank is unknown."""


class Builder:
    """New nodes before `node`, and its attributes and inputs with their defaults."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self._new: list[ir.Node] = []

    def op(
        self, op_type: str, *inputs: ir.Value | None, outputs: int = 1, **attributes: Any
    ) -> ir.Value:
        """A new node; returns its first output, the node has the others."""
        new = ir.node(op_type, list(inputs), attributes, num_outputs=outputs)
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, new)
        self._new.append(new)
        return new.outputs[0]

    def const(self, array: Any) -> ir.Value:
        """A constant; a node, since functions hold no initialisers."""
        tensor = ir.tensor(np.asarray(array))
        value = self.op("Constant", value=tensor)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        return value

    def ints(self, *values: int) -> ir.Value:
        """A vector of axes, sizes or permutations."""
        return self.const(np.array(values, np.int64))

    def scalar(self, number: float, like: ir.Value) -> ir.Value:
        """A number of the type of `like`."""
        value = self.const(np.array(number, np.float32))
        return value if like.dtype == ir.DataType.FLOAT else self.op("CastLike", value, like)

    def argument(self, index: int) -> ir.Value | None:
        """An input of the node, None where it is left out."""
        inputs = self.node.inputs
        return inputs[index] if index < len(inputs) else None

    def required(self, index: int) -> ir.Value:
        """An input of the node that a rule cannot do without."""
        value = self.argument(index)
        if value is None:
            raise Unexpressible
        return value

    def forbid(self, *indices: int) -> None:
        """The rule knows no such inputs."""
        if any(self.argument(i) is not None for i in indices):
            raise Unexpressible

    def wants(self, index: int) -> bool:
        """Does anybody use this output?"""
        outputs = self.node.outputs
        return index < len(outputs) and (
            bool(outputs[index].uses()) or outputs[index].is_graph_output()
        )

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute of the node; strings as text."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def rank(self, value: ir.Value) -> int:
        """The number of dimensions."""
        if value.shape is None:
            raise Unexpressible
        return len(value.shape)

    def constant(self, value: ir.Value | None) -> Any:
        """The array of a constant."""
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
        if tensor is None:
            raise Unexpressible
        return tensor.numpy()

    def replace(self, outputs: Sequence[ir.Value | None]) -> None:
        """Let the new values take the place of the node's outputs, and their names."""
        for index, old in enumerate(self.node.outputs):
            new = outputs[index] if index < len(outputs) else None
            if new is None:
                if self.wants(index):
                    raise Unexpressible
                continue
            if new.producer() not in self._new or new.uses() or new.is_graph_output():
                new = self.op("Identity", new)
            new.type, new.shape = new.type or old.type, new.shape or old.shape
            old.replace_all_uses_with(new, replace_graph_outputs=old.is_graph_output())
            new.name, old.name = old.name, None
        node = self.node
        remove_with_unused(node)
        if node.graph is not None:
            raise AssertionError(f"{node.op_type} is still used")

    def discard(self) -> None:
        """Take the new nodes out again."""
        graph = self.node.graph
        assert graph is not None
        graph.remove([n for n in self._new if n.graph is graph], safe=True)
