"""Raising a graph to a newer opset, and repairs of what the converter gets wrong."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir.passes import PassError

from infer_runtime.errors import ModelError, root_cause
from infer_tool.quiet import quiet
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Iterator

CONVERTER = "onnxscript.version_converter"
RESIZE_CHOICES = 11  # Resize says from here on how it maps coordinates


def convert_opset(model: ir.Model, target: int, source: str) -> None:
    """Convert in place, upwards.

    Raises:
        ModelError: naming the operator that is unknown, or the converter's reason.

    """
    current = opset(model)
    _check_operators(model, current, source)
    try:
        reasons = _run(model, target)
    except PassError as error:
        raise ModelError(
            f"{source}: opset {current} cannot be converted to {target}: {root_cause(error)}"
        ) from error
    if opset(model) != target:
        why = f": {reasons[-1]}" if reasons else ""
        raise ModelError(f"{source}: opset {current} cannot be converted to {target}{why}")
    if current < RESIZE_CHOICES:
        _pin_resize(model)


def _run(model: ir.Model, target: int) -> list[str]:
    """Convert; returns why it did not, which the converter only logs."""
    from onnxscript import version_converter

    reasons = _Reasons()
    logger = logging.getLogger(CONVERTER)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(reasons)
    try:
        with quiet():
            logging.disable(logging.NOTSET)
            # Without the fallback older operators keep their form under the new number.
            version_converter.convert_version(model, target, fallback=True)
    finally:
        logger.removeHandler(reasons)
        logger.propagate = propagate
    return reasons.found


class _Reasons(logging.Handler):
    """First lines of the exceptions that are logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            self.found.append(str(error).strip().splitlines()[-1][:200])


def _check_operators(model: ir.Model, version: int, source: str) -> None:
    """The converter answers an unknown operator with a crash or with nothing."""
    import onnx.defs

    functions = {(f.domain, f.name) for f in model.functions.values()}
    for node in model.graph.all_nodes():
        if node.domain or ("", node.op_type) in functions:
            continue
        try:
            onnx.defs.get_schema(node.op_type, version, "")
        except onnx.defs.SchemaError as error:
            raise ModelError(
                f"{source}: node {node.name or '?'} ({node.op_type}): no such operator in ONNX "
                f"opset {version}"
            ) from error


def _pin_resize(model: ir.Model) -> None:
    """Upsample and the first Resize map coordinates by x / scale and round towards zero.

    The converter leaves the attributes away, and the defaults of the newer Resize are others.
    """
    for node in _resizes(model):
        node.attributes["coordinate_transformation_mode"] = ir.AttrString(
            "coordinate_transformation_mode", "asymmetric"
        )
        node.attributes["nearest_mode"] = ir.AttrString(
            "nearest_mode", "ceil" if _shrinks(node) else "floor"
        )


def _resizes(model: ir.Model) -> Iterator[ir.Node]:
    return (n for n in model.graph.all_nodes() if n.op_type == "Resize" and not n.domain)


def _shrinks(node: ir.Node) -> bool:
    """ONNX Runtime rounds up where Resize of opset 10 makes smaller; the standard is silent."""
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    constant = ir.convenience.get_const_tensor(scales) if scales is not None else None
    return constant is not None and bool((constant.numpy() < 1).any())
