"""Shapes and types of values, as far as the standard's own inference finds them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from passes.base import CLEANING, Outcome, Pass, all_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class InferShapes(Pass):
    """Changes no node, and therefore counts no change.

    Given:  values of unknown or vague shape
    Result: their shapes, where they follow from the inputs; graph inputs and outputs stay
    """

    name: ClassVar[str] = "infer-shapes"
    level: ClassVar[int] = CLEANING

    def apply(self, model: ir.Model) -> Outcome:
        """Run ONNX shape inference; what it cannot infer stays as it is."""
        from onnx_ir.passes.common import ShapeInferencePass

        if model.graph.meta.get(_SEEN) == _vague(model):
            return Outcome(0)  # on a large graph this takes longer than all other passes
        fixed = (*model.graph.inputs, *model.graph.outputs, *_sequences(model))
        kept = [(v, v.shape, v.type) for v in fixed]
        logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
        disabled, logger.disabled = logger.disabled, True
        try:
            ShapeInferencePass(check_type=False, strict_mode=False)(model)
        finally:
            logger.disabled = disabled
        for value, shape, type_ in kept:
            value.shape, value.type = shape, type_
        model.graph.meta[_SEEN] = _vague(model)
        return Outcome(0)


def _sequences(model: ir.Model) -> Iterator[ir.Value]:
    """Values that are no tensors; onnx_ir would note the type of their elements as theirs."""
    for node in all_nodes(model):
        makes_tensor = node.op_type in ("SequenceAt", "SequenceLength", "ConcatFromSequence")
        for output in node.outputs:
            is_other = output.type is not None and not isinstance(output.type, ir.TensorType)
            if is_other or ("Sequence" in node.op_type and not makes_tensor):
                yield output


_SEEN = "infertool.shapes"
_INVENTED = "unk__"  # how the standard's inference begins the names that it invents


def _vague(model: ir.Model) -> int:
    """A number for the nodes with outputs of unknown shape: the same while they are the same."""
    return hash(
        tuple(
            (n.op_type, *(o.name for o in n.outputs), *(_source(v) for v in n.inputs))
            for n in all_nodes(model)
            if any(_is_vague(o) for o in n.outputs)
        )
    )


def _is_vague(value: ir.Value) -> bool:
    if value.shape is None:
        return bool(value.name)
    return any(
        not isinstance(d, int) and (d.value is None or d.value.startswith(_INVENTED))
        for d in value.shape
    )


def _source(value: ir.Value | None) -> tuple[str | None, bool]:
    return (None, False) if value is None else (value.name, value.const_value is not None)
