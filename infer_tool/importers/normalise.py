"""What every importer ends with: one opset, unique names, no local paths, a valid graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import ModelError
from passes.facts import opset
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

OPSET = 20
OLDEST, NEWEST = 7, 26  # before 7 broadcasting is another one; 26 is ONNX Runtime's ceiling
IR_VERSION = 10


def normalise(model: ir.Model, source: str) -> ir.Model:
    """Bring an imported model into the form that passes and quantisers expect.

    Raises:
        ModelError: the opset is out of range or cannot be converted, or the graph is not valid.

    """
    _plain_domain(model)
    _plain_dimensions(model)
    _convert_opset(model, source)
    _strip(model)
    _name_nodes(model)
    _infer_types(model)
    model.ir_version = IR_VERSION if opset(model) <= OPSET else max(IR_VERSION, model.ir_version)
    try:
        verify(model)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error
    return model


def _plain_domain(model: ir.Model) -> None:
    """'ai.onnx' is another name of the standard domain."""
    if "ai.onnx" in model.opset_imports:
        model.opset_imports.setdefault("", model.opset_imports.pop("ai.onnx"))
    for node in model.graph.all_nodes():
        if node.domain == "ai.onnx":
            node.domain = ""


def _plain_dimensions(model: ir.Model) -> None:
    """Some exporters write a dynamic dimension as -1."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            value.shape = ir.Shape(
                [None if isinstance(d, int) and d < 0 else d for d in value.shape]
            )


def _convert_opset(model: ir.Model, source: str) -> None:
    current = opset(model)
    if not OLDEST <= current <= NEWEST:
        raise ModelError(
            f"{source}: opset {current} is not supported; expected {OLDEST} to {NEWEST}"
        )
    if current >= OPSET:
        return
    from onnxscript import version_converter

    with quiet():
        # Without the fallback older operators keep their form under the new number.
        version_converter.convert_version(model, OPSET, fallback=True)
    if opset(model) != OPSET:
        raise ModelError(f"{source}: opset {current} could not be converted to {OPSET}")


def _strip(model: ir.Model) -> None:
    """Doc strings and metadata of exporters hold stack traces with the paths of one machine."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    stamps = dict(model.metadata_props)
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.update(stamps)
    for holder in (model, model.graph):
        own = {k: v for k, v in holder.metadata_props.items() if k.startswith("infertool.")}
        holder.metadata_props.clear()
        holder.metadata_props.update(own)
        holder.doc_string = None
    model.producer_name, model.producer_version = "infertool", None


def _name_nodes(model: ir.Model) -> None:
    """Every node gets a unique name; a name that is unique already stays."""
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    for node in model.graph.all_nodes():
        base = node.name or node.op_type.lower()
        name = base
        while name in taken:
            numbers[base] = numbers.get(base, 0) + 1
            name = f"{base}_{numbers[base]}"
        node.name = name
        taken.add(name)


def _infer_types(model: ir.Model) -> None:
    from onnx_ir.passes.common import ShapeInferencePass

    with quiet():
        ShapeInferencePass()(model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Converters talk on stdout and through loggers; stdout is ours."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
