"""ONNX rows: real files, files that ONNX Runtime has optimised, and a large one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import zoo
from importers.row import Row, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

GIGABYTE, LAYERS = 1_000_000_000, 60
ENGINE = "onnxruntime"  # the reference as well: what differs is the import's doing
SECONDS, MEGABYTES = 0.2, 50.0
# Prints seconds and MiB of anonymous memory that the import adds to what its modules take.
MEASURED = """
import sys, time
from pathlib import Path
import onnx.shape_inference
import onnxscript.version_converter
import infer_tool.importers.onnx
from infer_tool.importers import ImportOptions, import_source

def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith("Anonymous:")) / 1024

before, start = anonymous(), time.perf_counter()
imported = import_source(sys.argv[1], ImportOptions())
print(time.perf_counter() - start, anonymous() - before, len(imported.model.graph))
"""


def rows(only: str = "", _models: Path | None = None) -> Iterator[Row]:
    """All rows whose model's name holds the text."""
    entries = [e for e in zoo.entries() if not e.name.startswith("digits")]
    for entry in entries:
        if only in entry.name:
            yield measure(entry.name, str(entry.path), feeds=_feeds(entry), engine=ENGINE)
    for entry in entries:
        name = f"{entry.name}, fused by ORT"
        if only in name and ("MiniLM" in name or "PP-OCRv4" in name):
            yield fused(name, entry)
    for opset in (20, 13):
        name = f"1 GB of external data, opset {opset}"
        if only in name:
            yield large(name, opset)


def _feeds(entry: zoo.Entry) -> list[zoo.Feeds]:
    """The entry's own, and half of it."""
    half = {n: x if x.dtype.kind != "f" else x / x.dtype.type(2) for n, x in entry.feeds.items()}
    return [entry.feeds, half]


def fused(name: str, entry: zoo.Entry) -> Row:
    """Full of contrib operators: what ONNX Runtime writes at its extended level."""
    import onnxruntime as ort

    with TemporaryDirectory() as folder:
        path = Path(folder) / "fused.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        ort.InferenceSession(str(entry.path), options, providers=["CPUExecutionProvider"])
        foreign = [n.op_type for n in onnx.load(path).graph.node if n.domain]
        row = measure(name, str(path), feeds=_feeds(entry), engine=ENGINE)
    found = ", ".join(f"{foreign.count(op)} {op}" for op in sorted(set(foreign)))
    return Row(
        row.model, row.route, row.nodes, row.seconds, row.error, row.limit, f"{found} {row.note}"
    )


def large(name: str, opset: int) -> Row:
    """A file of holes, which the import must not read; seconds and memory beyond start-up."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "large.onnx"
        _write_large(path, opset)
        command = [sys.executable, "-c", MEASURED, str(path)]
        environment = {"PYTHONPATH": str(Path(__file__).parents[2])}
        printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    seconds, megabytes, nodes = map(float, printed.split())
    good = seconds < SECONDS and megabytes < MEGABYTES
    note = f"{megabytes:.1f} MB of anonymous memory" + ("" if good else ": TOO MUCH")
    return Row(name, "onnx", int(nodes), seconds, 0.0 if good else float("inf"), note=note)


def _write_large(path: Path, opset: int) -> None:
    side = int(np.sqrt(GIGABYTE / 4 / LAYERS))
    nodes, tensors, size = [], [], 4 * side * side
    for i in range(LAYERS):
        place = {"location": "large.bin", "offset": str(i * size), "length": str(size)}
        tensors.append(_external(f"w{i}", side, place))
        nodes.append(
            onnx.helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"], name=f"m{i}")
        )
    ends = [onnx.helper.make_tensor_value_info(f"h{i}", 1, ["N", side]) for i in (0, LAYERS)]
    graph = onnx.helper.make_graph(nodes, "large", ends[:1], ends[1:], tensors)
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path.write_bytes(model.SerializeToString())
    with path.with_name("large.bin").open("wb") as data:
        data.truncate(LAYERS * size)


def _external(name: str, side: int, place: dict[str, Any]) -> onnx.TensorProto:
    tensor = onnx.TensorProto(
        name=name, data_type=1, dims=[side, side], data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    return tensor
