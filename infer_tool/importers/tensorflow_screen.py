"""SavedModels and frozen graphs before TensorFlow sees them: damage, paths, and what would act.

A graph of TensorFlow is a program: some operations read and write files or call Python. Field
numbers are those of TensorFlow's saved_model.proto, meta_graph.proto, graph.proto, function.proto,
node_def.proto, attr_value.proto and tensor.proto.
"""

from __future__ import annotations

import re
from collections import Counter
from math import prod
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from infer_runtime.errors import ModelError, UnsupportedOpError
from infer_tool.importers.detect import SAVED_MODEL
from infer_tool.importers.wire import WireError, fields, messages, text

if TYPE_CHECKING:
    from collections.abc import Iterator

META_GRAPH, GRAPH, ASSET = 2, 2, 6
NODE, LIBRARY, FUNCTION, FUNCTION_NODE = 1, 2, 1, 3
NAME, OP, ATTRIBUTE, ATTRIBUTE_VALUE, TENSOR = 1, 2, 5, 2, 8
ASSET_FILE = 2
TENSOR_SHAPE, DIMENSION, SIZE = 2, 2, 1
LARGEST_CONSTANT = 1 << 29  # elements of one that its file does not spell out

ACTING = re.compile(
    r"\w*PyFunc\w*|ReadFile|WriteFile|ImmutableConst|DumpTensor|DistributedSave|RecordInput"
    r"|ImportEvent|LoadAndRemapMatrix|CalibrationStatisticsSaver|FileSystemSetConfiguration"
    r"|(Experimental)?MatchingFiles(Dataset)?|(Experimental)?DatasetToTFRecord|Rpc\w+|Debug\w+"
    r"|(WholeFile|TextLine|TFRecord|FixedLengthRecord|LMDB)Reader(V2)?"
    r"|(Experimental)?(TextLine|TFRecord|CSV|FixedLengthRecord|LMDB|Sql|Save|Load|Cache)Dataset(V2)?"
    r"|\w*Snapshot\w*Dataset\w*|DataService\w+|CreateSummary\w+|Write\w*Summary|\w*XlaHost\w*"
)


def screen_saved_model(source: str, *, follow_links: bool) -> None:
    """Raise for a folder that TensorFlow should not load.

    Raises:
        ModelError: damaged, or reaching outside its folder.
        UnsupportedOpError: naming operations that would act on files or call code.

    """
    folder = Path(source)
    _check_links(source, folder, follow_links)
    data = memoryview((folder / SAVED_MODEL).read_bytes())
    try:
        metas = list(messages(data, META_GRAPH))
        for name in (text(asset, ASSET_FILE) for meta in metas for asset in messages(meta, ASSET)):
            _check_asset(source, name)
        graphs = [graph for meta in metas for graph in messages(meta, GRAPH)]
        if not graphs:
            raise ModelError(f"{source}: {SAVED_MODEL} holds no graph; copy the folder again")
        _check_graphs(source, graphs)
    except WireError as error:
        raise ModelError(f"{source}: {SAVED_MODEL} is damaged: {error}; copy it again") from error


def screen_graph(source: str) -> None:
    """The same for a frozen graph."""
    try:
        _check_graphs(source, [memoryview(Path(source).read_bytes())])
    except WireError as error:
        raise ModelError(f"{source}: is damaged: {error}; copy it again") from error


def _check_links(source: str, folder: Path, follow_links: bool) -> None:
    if follow_links:
        return
    home = folder.resolve()
    for path in folder.rglob("*"):
        if not path.resolve().is_relative_to(home):
            raise ModelError(
                f"{source}: {path.relative_to(folder)} links to a place outside the folder; "
                "copy the file there, or allow it with --follow-links"
            )


def _check_asset(source: str, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise ModelError(f"{source}: its asset {name!r} lies outside its folder")


def _check_graphs(source: str, graphs: list[memoryview]) -> None:
    acting: list[tuple[str, str]] = []
    for graph in graphs:
        for node in _nodes(graph):
            op, name = text(node, OP), text(node, NAME)
            if ACTING.fullmatch(op):
                acting.append((op, name))
            if op == "Const":
                _check_constant(source, name, node)
    if acting:
        listed = ", ".join(f"{op} ({n}x)" for op, n in Counter(op for op, _ in acting).items())
        raise UnsupportedOpError(
            f"{source}: acts on files or calls code: {listed}, first at node {acting[0][1]!r}; "
            "save the model without it"
        )


def _nodes(graph: memoryview) -> Iterator[memoryview]:
    yield from messages(graph, NODE)
    yield from messages(graph, LIBRARY, FUNCTION, FUNCTION_NODE)


def _check_constant(source: str, name: str, node: memoryview) -> None:
    """A few bytes can stand for a constant of any size, which TensorFlow would allocate."""
    for tensor in messages(node, ATTRIBUTE, ATTRIBUTE_VALUE, TENSOR):
        sizes = [
            next((v for n, v in fields(dim) if n == SIZE and isinstance(v, int)), 0)
            for dim in messages(tensor, TENSOR_SHAPE, DIMENSION)
        ]
        if prod(sizes) > max(LARGEST_CONSTANT, 8 * len(tensor)):
            shown = "x".join(map(str, sizes))
            raise ModelError(f"{source}: constant {name!r} has {shown} elements, but not its file")
