"""A model with fixed shapes and nothing left to compute but what depends on the inputs."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.errors import ModelError
from passes.base import EXTERNAL
from passes.default import PASSES
from passes.facts import opset
from passes.sizes import input_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OLDEST_OPSET = 13
MAX_ROUNDS = 8


def prepare(model: ir.Model, shapes: Mapping[str, Sequence[int]] | None = None) -> ir.Model:
    """A copy whose inputs have fixed sizes, after the exact passes.

    Raises:
        ModelError: functions that cannot be inlined, or an opset that is too old.
        UsageError: a dimension of an input stays open, or a shape does not fit.

    """
    if opset(model) < OLDEST_OPSET:
        raise ModelError(
            f"opset {opset(model)}: the C emitter reads {OLDEST_OPSET} and newer; "
            "import the model with infertool first"
        )
    sizes = input_sizes(Session(model).inputs, shapes or {})
    copy = _inlined(model)
    for value in copy.graph.inputs:
        if value.name in sizes:
            value.shape = ir.Shape(sizes[value.name])
    _forget_shapes(copy)
    _run_passes(copy)
    return copy


def _inlined(model: ir.Model) -> ir.Model:
    from onnx_ir.passes.common import InlinePass

    copy = model.clone()
    return InlinePass()(copy).model if copy.functions else copy


def _forget_shapes(model: ir.Model) -> None:
    """Shapes with dynamic dimensions, names or -1: they are inferred again from the fixed ones."""
    for node in model.graph.all_nodes():
        for output in node.outputs:
            if output.shape is not None and not _is_fixed(output.shape):
                output.shape = None


def _is_fixed(shape: ir.Shape) -> bool:
    return shape.is_static() and all(int(n) >= 0 for n in shape.numpy())


def _run_passes(model: ir.Model) -> None:
    """To a fix-point, without the proofs: what is emitted is compared as a whole."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        for _ in range(MAX_ROUNDS):
            changes = sum(p.apply(model).changes for p in PASSES if p.level < EXTERNAL)
            if not changes:
                return
    finally:
        if was_on:
            gc.enable()
