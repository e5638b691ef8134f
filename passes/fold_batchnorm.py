"""BatchNormalization into the linear node before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.base import RewriteRule, is_op
from passes.graph import constant, is_constant
from passes.match import rank, replace_node
from passes.weights import MATRIX, absorb, copy_reason, fold_affine, foldable_reason

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FoldBatchNorm(RewriteRule):
    """A normalisation with fixed statistics is a scale and a shift of each channel.

    Given:  c = Conv | ConvTranspose | Gemm | MatMul (x, W, b)
            y = BatchNormalization(c, g, B, mean, var)
    Result: y = Conv(x, W * s, (b - mean) * s + B)   with s = g / sqrt(var + epsilon)
            and a Gemm for a MatMul, whose product must be a matrix
    """

    name: ClassVar[str] = "fold-batchnorm"

    def match(self, node: ir.Node) -> bool:
        """Any BatchNormalization."""
        return is_op(node, "BatchNormalization") and node.inputs[0] is not None

    def check(self, node: ir.Node) -> str | None:
        """Constants, inference form, a linear producer that nobody else reads."""
        if (
            node.attributes.get_int("training_mode", 0)
            or node.attributes.get_int("spatial", 1) != 1
        ):
            return "it is not the inference form with one factor for each channel"
        if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
            return "its statistics are used"
        for value in node.inputs[1:]:
            if not is_constant(value):
                return f"{value.name if value else '?'} is not a constant"
        assert node.inputs[0] is not None
        linear = node.inputs[0].producer()
        if reason := foldable_reason(linear, node):
            return reason
        assert linear is not None
        if is_op(linear, "MatMul") and rank(linear.outputs[0]) != MATRIX:
            return "the channels of the product are not on its last axis"
        return copy_reason(linear, node)

    def rewrite(self, node: ir.Node) -> None:
        """Fold scale and shift; the linear node takes over the output."""
        g, b, mean, var = (constant(v).astype(np.float64) for v in node.inputs[1:5])  # type: ignore[union-attr]
        scale = g / np.sqrt(var + node.attributes.get_float("epsilon", 1e-5))
        assert node.inputs[0] is not None
        linear = node.inputs[0].producer()
        assert linear is not None
        if is_op(linear, "MatMul"):
            linear = replace_node(linear, "Gemm", linear.inputs)
        fold_affine(linear, scale, b - mean * scale)
        absorb(linear, node)
