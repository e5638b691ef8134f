"""Addition and multiplication of a constant for each channel into the linear node before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from passes.base import RewriteRule, is_op
from passes.graph import constant, is_constant
from passes.match import producer, rank
from passes.weights import (
    LINEAR,
    SCALED,
    absorb,
    channels,
    copy_reason,
    fold_affine,
    foldable_reason,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class FoldAffine(RewriteRule):
    """A bias or a scale of each channel belongs to the weights.

    Given:  c = Conv | ConvTranspose | Gemm (x, W, b)
            y = Add(c, k) | Sub(c, k) | Mul(c, k) | Div(c, k)   k: one constant for each channel
            or y = Neg(c)
    Result: y = Conv(x, W * s, b * s + t)   MatMul too, where nothing is added
    """

    name: ClassVar[str] = "fold-affine"

    def match(self, node: ir.Node) -> bool:
        """Arithmetic of a linear node's output and a constant."""
        if is_op(node, "Neg"):
            return producer(node.inputs[0], *SCALED) is not None
        if not is_op(node, "Add", "Sub", "Mul", "Div"):
            return False
        linear, other = _operands(node)
        return linear is not None and is_constant(other)

    def check(self, node: ir.Node) -> str | None:
        """One value for each channel, and a linear producer that nobody else reads."""
        linear, other = _operands(node)
        if reason := foldable_reason(linear, node):
            return reason
        assert linear is not None
        if is_op(node, "Neg"):
            return copy_reason(linear, node)
        if _per_channel(linear, other) is None:
            return "the constant is not one value for each channel"
        factor = constant(other)
        if is_op(node, "Div") and factor is not None and not np.all(factor):
            return "the constant holds a zero"
        return copy_reason(linear, node) if is_op(node, "Mul", "Div") else None

    def rewrite(self, node: ir.Node) -> None:
        """Fold; the linear node takes over the output."""
        linear, other = _operands(node)
        assert linear is not None
        k = -np.ones(channels(linear)) if is_op(node, "Neg") else _per_channel(linear, other)
        assert k is not None
        scale, shift = {
            "Add": (None, k),
            "Sub": (None, -k),
            "Mul": (k, None),
            "Neg": (k, None),
            "Div": (1 / k, None),
        }[node.op_type]
        fold_affine(linear, scale, shift)
        absorb(linear, node)


def _operands(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The linear node and the other operand; Sub and Div only with the linear node first."""
    if is_op(node, "Neg"):
        return producer(node.inputs[0], *SCALED), None
    first, second = node.inputs[0], node.inputs[1]
    pairs = [(first, second)]
    if node.op_type in ("Add", "Mul"):
        pairs.append((second, first))
    for value, other in pairs:
        ops = LINEAR if is_op(node, "Add", "Sub") else SCALED
        if (linear := producer(value, *ops)) is not None:
            return linear, other
    return None, None


def _per_channel(linear: ir.Node, other: ir.Value | None) -> Array | None:
    """The constant as float64 [channels], when it broadcasts along the channel axis only."""
    array, weight = constant(other), constant(linear.inputs[1])
    if array is None or weight is None or array.dtype != weight.dtype:
        return None
    count = channels(linear)
    # A MatMul keeps all axes of its input but the last; of a vector it makes a vector.
    size = rank(linear.outputs[0]) or 1 if is_op(linear, "MatMul") else weight.ndim
    if array.size == 1:
        fits = array.ndim <= size
    else:
        tail = 0 if is_op(linear, "Gemm", "MatMul") else weight.ndim - 2
        wanted = (count, *(1,) * tail)
        fits = array.shape[-len(wanted) :] == wanted and array.size == count
        fits = fits and array.ndim <= size
    return np.broadcast_to(array.reshape(-1), (count,)).astype(np.float64) if fits else None
