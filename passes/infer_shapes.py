"""Shapes and types of values, as far as the standard's own inference finds them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from passes.base import Outcome, Pass

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class InferShapes(Pass):
    """Changes no node, and therefore counts no change.

    Given:  values of unknown or vague shape
    Result: their shapes, where they follow from the inputs; graph inputs and outputs stay
    """

    name: ClassVar[str] = "infer-shapes"

    def apply(self, model: ir.Model) -> Outcome:
        """Run ONNX shape inference; what it cannot infer stays as it is."""
        from onnx_ir.passes.common import ShapeInferencePass

        kept = [(v, v.shape, v.type) for v in (*model.graph.inputs, *model.graph.outputs)]
        logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
        disabled, logger.disabled = logger.disabled, True
        try:
            ShapeInferencePass(check_type=False, strict_mode=False)(model)
        finally:
            logger.disabled = disabled
        for value, shape, type_ in kept:
            value.shape, value.type = shape, type_
        return Outcome(0)
