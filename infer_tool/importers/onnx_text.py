"""ONNX as text (.onnxtxt), in the syntax of the standard's own parser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers import Imported
from infer_tool.importers import onnx as onnx_files
from infer_tool.importers.links import relocate
from infer_tool.importers.normalise import normalise
from infer_tool.reason import reason
from passes.facts import opset

if TYPE_CHECKING:
    from infer_tool.importers import ImportOptions

DEEPEST = 500
LARGEST = 1 << 28  # bytes; nobody writes weights as text


def load(source: str, options: ImportOptions) -> Imported:
    """Parse, check and normalise.

    Raises:
        ModelError: naming the line that is wrong, or what is wrong with the model.

    """
    path = Path(source)
    try:
        model = _parsed(path, follow_links=False)
        onnx_files.check_graph(path, model)
        onnx_files.check_texts(path, model)
        onnx_files.check_tensors(path, model, follow_links=options.follow_links)
        if options.follow_links:
            relocate(model)
        written = opset(model)
        model = normalise(model, source)
    except onnx_files.DAMAGE as error:
        raise ModelError(f"{path}: is no valid ONNX text ({reason(error)})") from error
    reference = onnx_files.LazyReference(lambda: _parsed(path, follow_links=options.follow_links))
    return Imported(model, "onnx_text", path, reference, written)


def _parsed(path: Path, *, follow_links: bool) -> ir.Model:
    import onnx.parser
    from google.protobuf.message import DecodeError

    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path}: is larger than {LARGEST} bytes of text")
    try:
        text = path.read_text()
        _check_nesting(path, text)
        proto = onnx.parser.parse_model(text)
    except (onnx.parser.ParseError, DecodeError, UnicodeDecodeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(f"{path}: is no valid ONNX text: {' '.join(lines)[:300]}") from error
    model = ir.from_proto(proto)
    for _, tensor in onnx_files.constants(model):
        if isinstance(tensor, ir.ExternalTensor):
            tensor.base_dir = path.absolute().parent
    if follow_links:
        relocate(model)
    return model


def _check_nesting(path: Path, text: str) -> None:
    """The parser calls itself for each level; thousands end the process."""
    depth = 0
    for bracket in re.findall(r"[{}()]", text):
        depth += 1 if bracket in "{(" else -1
        if depth > DEEPEST:
            raise ModelError(f"{path}: is no valid ONNX text: more than {DEEPEST} nested brackets")
