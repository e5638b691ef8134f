"""Nodes that change nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import CLEANING, RewriteRule, is_op
from passes.graph import constant, remove_node, replace_value

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir


@dataclass(frozen=True)
class EliminateIdentity(RewriteRule):
    """The users take the input itself.

    Given:  y = Identity(x), Dropout(x) of an inference graph, or a Reshape, Transpose, Cast, Pad,
            Flatten, Expand or Concat that provably changes nothing
    Result: x in the place of y
    """

    name: ClassVar[str] = "eliminate-identity"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """One of these operators, in a form that changes nothing."""
        test = _TESTS.get(node.op_type) if is_op(node, node.op_type) else None
        return test is not None and node.inputs[0] is not None and test(node)

    def check(self, node: ir.Node) -> str | None:
        """An output must keep its name, which an input or an outer value cannot take."""
        value, output = node.inputs[0], node.outputs[0]
        assert value is not None
        if not output.is_graph_output():
            return None
        producer = value.producer()
        if producer is None or producer.graph is not node.graph:
            return f"{output.name} is a graph output and {value.name} is not computed in its graph"
        if value.is_graph_output():
            return f"{output.name} and {value.name} are both graph outputs"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Bypass the node."""
        value = node.inputs[0]
        assert value is not None
        replace_value(node.outputs[0], value)
        remove_node(node)


def _static(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    return value.shape.numpy() if value.shape.is_static() else None


def _same_shape(node: ir.Node) -> bool:
    before, after = _static(node.inputs[0]), _static(node.outputs[0])
    return before is not None and before == after


def _dropout(node: ir.Node) -> bool:
    """Inference form whose mask nobody reads."""
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        training = constant(node.inputs[2])
        return training is not None and not bool(training)
    return True


def _transpose(node: ir.Node) -> bool:
    perm = node.attributes.get_ints("perm", None)
    return perm is not None and list(perm) == list(range(len(perm)))


def _cast(node: ir.Node) -> bool:
    value = node.inputs[0]
    return value is not None and value.dtype == node.attributes["to"].as_int()


def _pad(node: ir.Node) -> bool:
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not np.any(pads)


_TESTS: dict[str, Callable[[ir.Node], bool]] = {
    "Identity": lambda node: True,  # noqa: ARG005
    "Dropout": _dropout,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Expand": _same_shape,
    "Transpose": _transpose,
    "Cast": _cast,
    "Pad": _pad,
    "Concat": lambda node: len(node.inputs) == 1,
}
