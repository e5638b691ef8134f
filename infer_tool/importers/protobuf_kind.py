"""Which protobuf is this? Numbers and wire types of its first fields tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.wire import WireError, first_field, top_level

if TYPE_CHECKING:
    from pathlib import Path

MINDSPORE = memoryview(b"MindSpore")
FIRST = 8  # fields that are looked at; those that tell come first


def protobuf_kind(path: Path) -> str:
    """'graph_def', 'saved_model_file', 'paddle', 'mindir' or 'onnx', the answer where none fits.

    A GraphDef (graph.proto) and a Paddle program (framework.proto) begin with a message, a node
    that begins with its name and a block that begins with its number. MINDIR (mind_ir.proto)
    begins with a version as text. ONNX and SavedModel begin with a version as a number; a
    SavedModel has nothing but graphs in field 2 beside it, and ONNX has its graph in field 7.
    """
    try:
        found = list(top_level(path, FIRST))
        first_number, first = found[0]
        if first_number != 1:
            return "onnx"
        if isinstance(first, memoryview):
            return _beginning_with(first, found)
        numbers = {number for number, _ in found}
        return "saved_model_file" if numbers == {1, 2} and _has_graph(found) else "onnx"
    except (WireError, IndexError):
        return "onnx"


def _beginning_with(first: memoryview, found: list[tuple[int, int | memoryview]]) -> str:
    if (2, MINDSPORE) in found:
        return "mindir"
    number, value = first_field(first)
    if number != 1:
        return "onnx"
    if isinstance(value, int):
        return "paddle"
    return "graph_def"


def _has_graph(found: list[tuple[int, int | memoryview]]) -> bool:
    """The producer's name of an ONNX file is no message; a MetaGraphDef begins with its own."""
    return all(
        isinstance(value, memoryview) and first_field(value)[0] in (1, 2)
        for number, value in found
        if number == 2
    )
