"""What every importer ends with: one opset, unique names, no local paths, a valid graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers.contrib import expand_contrib, has_contrib, own_contrib
from infer_tool.importers.lower_opset import lower_opset
from infer_tool.importers.names import Names
from infer_tool.importers.opset import convert_opset
from infer_tool.quiet import quiet
from passes.facts import opset
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

OPSET = 20
OLDEST, NEWEST = 7, 26  # before 7 broadcasting is another one; 26 is ONNX Runtime's ceiling
IR_VERSION, NEWEST_IR = 10, 13  # what opset 20 came with, and again the ceiling
# Until then every initialiser had to be listed as an input too, which made none of them optional.
LISTED_INITIALISERS = 4

STAMP = "infertool."
# The first output of these is a sequence of tensors.
SEQUENCES = {
    "SplitToSequence", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase",
    "SequenceMap",
}  # fmt: skip


def normalise(model: ir.Model, source: str, target: int = OPSET) -> ir.Model:
    """Bring an imported model into the form that passes and quantisers expect.

    An opset below `target` is raised to it.

    Raises:
        ModelError: the opset is out of range or cannot be converted, or the graph is not valid.

    """
    _plain_domain(model)
    _plain_dimensions(model)
    _check_opset(model, source)
    declared = [value.shape for value in model.graph.outputs]
    _unlist_initialisers(model)
    _name_values(model)
    _strip(model)
    own_contrib(model)
    if opset(model) < target:
        convert_opset(model, target, source)
        _name_values(model)
    if has_contrib(model):
        _infer_types(model)
        expand_contrib(model, source)
        _name_values(model)
    _name_nodes(model)
    _infer_types(model)
    _declare(model, declared)
    newer = min(NEWEST_IR, max(IR_VERSION, model.ir_version))
    model.ir_version = IR_VERSION if opset(model) <= OPSET else newer
    try:
        verify(model)
    except ModelError as error:
        from infer_tool.importers.gate import check

        check(model, source)  # what nobody knows is the better reason
        raise ModelError(f"{source}: {error}") from error
    return model


def _plain_domain(model: ir.Model) -> None:
    """'ai.onnx' is another name of the standard domain."""
    for holder in bodies(model):
        if "ai.onnx" in holder.opset_imports:
            holder.opset_imports.setdefault("", holder.opset_imports.pop("ai.onnx"))
    for node in _all_nodes(model):
        if node.domain == "ai.onnx":
            node.domain = ""


def _plain_dimensions(model: ir.Model) -> None:
    """Some exporters write a dynamic dimension as -1."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
            dims = [None if isinstance(d, int) and d < 0 else d for d in value.shape]
            value.shape = ir.Shape(dims)


def _check_opset(model: ir.Model, source: str) -> None:
    import onnx.defs

    current, known = opset(model), onnx.defs.onnx_opset_version()
    if not OLDEST <= current <= max(NEWEST, known):
        raise ModelError(
            f"{source}: opset {current} is not supported; expected {OLDEST} to {known}"
        )
    if current > NEWEST:
        lower_opset(model, _all_nodes(model), NEWEST, source)


def _unlist_initialisers(model: ir.Model) -> None:
    if model.ir_version < LISTED_INITIALISERS:
        from onnx_ir.passes.common import RemoveInitializersFromInputsPass

        RemoveInitializersFromInputsPass()(model)


def _strip(model: ir.Model) -> None:
    """Doc strings and metadata of exporters hold stack traces with the paths of one machine.

    Our own stamps stay: how a model was calibrated, and what form its weights are stored in.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    holders = [model, *model.graph]
    stamps = [
        {k: v for k, v in holder.metadata_props.items() if k.startswith(STAMP)}
        for holder in holders
    ]
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    for holder, kept in zip(holders, stamps, strict=True):
        holder.metadata_props.update(kept)
    model.doc_string = None
    for body in (*bodies(model), *model.graphs()):
        body.metadata_props.clear()
        body.doc_string = None
    model.producer_name, model.producer_version = "infertool", None


def _name_nodes(model: ir.Model) -> None:
    """Every node gets a unique name; a name that is unique already stays."""
    names = Names()
    for node in _all_nodes(model):
        node.name = names.claim(node.name or node.op_type.lower())


def _name_values(model: ir.Model) -> None:
    """Every value gets a name of its own, also across subgraphs; inputs and outputs keep theirs.

    The two branches of an If may use one name for two values, which ONNX allows and nothing that
    looks values up by name survives.
    """
    names = Names()
    seen: set[int] = set()
    for value in _values(model):
        if id(value) in seen:
            continue
        seen.add(id(value))
        if value.name or value.uses():
            value.name = names.claim(value.name or "value")


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """All values, those that the outside knows first."""
    yield from (*model.graph.inputs, *model.graph.outputs)
    for graph in model.graphs():
        yield from (*graph.inputs, *graph.initializers.values())
    for function in model.functions.values():
        yield from function.inputs
    for node in _all_nodes(model):
        yield from node.outputs


def _all_nodes(model: ir.Model) -> Iterable[ir.Node]:
    for body in bodies(model):
        yield from body.all_nodes()


def bodies(model: ir.Model) -> list[ir.Graph | ir.Function]:
    """What has nodes and opsets of its own."""
    return [model.graph, *model.functions.values()]


def _infer_types(model: ir.Model) -> None:
    from onnx_ir.passes.common import ShapeInferencePass

    with quiet():
        ShapeInferencePass()(model)
    _restore_sequences(model)


def _declare(model: ir.Model, shapes: list[ir.Shape | None]) -> None:
    """What the model says of its outputs stays: inference, which the converter of opsets runs as
    well, gives their unnamed dimensions names that nobody chose.
    """
    for value, shape in zip(model.graph.outputs, shapes, strict=True):
        if shape is not None:
            value.shape = shape


def _restore_sequences(model: ir.Model) -> None:
    """onnx_ir takes over an inferred sequence of tensors as if it was one of its tensors."""
    for node in _all_nodes(model):
        if not node.outputs or node.domain:
            continue
        value, source = node.outputs[0], node.inputs[0] if node.inputs else None
        copied = source.type if source is not None and node.op_type == "Identity" else None
        if node.op_type in SEQUENCES or isinstance(copied, ir.SequenceType):
            if isinstance(value.type, ir.TensorType):
                value.type = ir.SequenceType(value.type)
            value.shape = None
