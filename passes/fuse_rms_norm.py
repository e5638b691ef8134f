"""RMSNormalization from its parts, and the one form of the parts that engines fuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import RewriteRule, is_op
from passes.graph import add_initializer
from passes.match import inner, only_user, replace_node
from passes.normalization import (
    constant_beside,
    is_square,
    last_axes_reason,
    mean_axes,
    root_of_mean,
)

if TYPE_CHECKING:
    from passes.normalization import Array


@dataclass(frozen=True)
class _Parts:
    """value / sqrt(mean of the squares + epsilon) * scale; `last` computes the result."""

    value: ir.Value
    square: ir.Node
    root: ir.Value
    axes: list[int]
    epsilon: float
    scale: Array
    last: ir.Node


@dataclass(frozen=True)
class FuseRMSNorm(RewriteRule):
    """Normalisation by the root of the mean square over the last axes.

    Given:  r = Sqrt(ReduceMean(x * x) + e)   y = x / r * scale    or x * Reciprocal(r) * scale
    Result: y = RMSNormalization<axis, epsilon=e>(x, scale)
    """

    name: ClassVar[str] = "fuse-rms-norm"
    since: ClassVar[int] = 23

    def match(self, node: ir.Node) -> bool:
        """The division by the root, and the scale."""
        return _parts(node) is not None

    def check(self, node: ir.Node) -> str | None:
        """The last axes, with a constant for each of their elements."""
        return _reason(node)

    def rewrite(self, node: ir.Node) -> None:
        """One operator in the place of the last one."""
        parts = _parts(node)
        assert parts is not None
        name = f"{parts.last.outputs[0].name}_scale"
        scale = add_initializer(node.graph, name, np.ascontiguousarray(parts.scale))
        attributes = {"axis": -len(parts.axes), "epsilon": parts.epsilon}
        replace_node(parts.last, "RMSNormalization", [parts.value, scale], attributes)


@dataclass(frozen=True)
class PlainRMSNorm(RewriteRule):
    """ONNX Runtime fuses this form alone, into a kernel that takes half of the time.

    Given:  r = Sqrt(ReduceMean(x * x) + e)        y = x * Reciprocal(r) * scale
    Result: r = Sqrt(ReduceMean(Pow(x, 2)) + e)    y = x / r * scale
    """

    name: ClassVar[str] = "plain-rms-norm"

    def match(self, node: ir.Node) -> bool:
        """Another form of the same."""
        parts = _parts(node)
        return parts is not None and not (is_op(node, "Div") and is_op(parts.square, "Pow"))

    def check(self, node: ir.Node) -> str | None:
        """What engines fuse: the last axes, with a constant for each of their elements."""
        return _reason(node)

    def rewrite(self, node: ir.Node) -> None:
        """A square as a power, and a division."""
        parts = _parts(node)
        assert parts is not None
        if is_op(node, "Mul"):
            replace_node(node, "Div", [parts.value, parts.root])
        if is_op(parts.square, "Mul"):
            two = np.array(2, np.float32)
            exponent = add_initializer(parts.last.graph, f"{parts.square.outputs[0].name}_two", two)
            replace_node(parts.square, "Pow", [parts.value, exponent])


def _reason(node: ir.Node) -> str | None:
    parts = _parts(node)
    assert parts is not None
    return last_axes_reason(parts.value, parts.axes, parts.scale)


def _parts(node: ir.Node) -> _Parts | None:
    """Everything that the division by the root stands in; None when a part is missing."""
    found = _quotient(node)
    last = None if found is None else only_user(node.outputs[0])
    scale = constant_beside(last, "Mul", node.outputs[0])
    if found is None or last is None or scale is None or scale.dtype != np.float32:
        return None
    value, root, user = found
    mean = root_of_mean(root, user)
    square = None if mean is None else inner(mean[0].inputs[0], mean[0], "Mul", "Pow")
    axes = None if mean is None else mean_axes(mean[0])
    if mean is None or square is None or axes is None or not is_square(square, value):
        return None
    if value.dtype != ir.DataType.FLOAT:
        return None
    return _Parts(value, square, root, axes, mean[1], scale, last)


def _quotient(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Node] | None:
    """The dividend, the divisor and who reads that; a Mul by a Reciprocal divides too."""
    if not is_op(node, "Div", "Mul"):
        return None
    first, second = node.inputs[:2]
    if is_op(node, "Div"):
        fits = first is not None and second is not None and is_op(second.producer(), "Sqrt")
        return (first, second, node) if fits else None  # type: ignore[return-value]
    for value, other in ((first, second), (second, first)):
        inverse = inner(other, node, "Reciprocal")
        if inverse is not None and value is not None and inverse.inputs[0] is not None:
            return value, inverse.inputs[0], inverse
    return None
