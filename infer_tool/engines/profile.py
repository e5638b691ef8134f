"""Milliseconds of every node, where an engine tells."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import UsageError
from infer_tool.engines.common import as_file
from infer_tool.engines.onnxruntime import QUIET, new_session
from infer_tool.extras import require

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

Row = tuple[str, str, float]  # node, operator, milliseconds of one run
PROFILE_RUNS = 10
KERNEL = "_kernel_time"
# What ONNX Runtime appends to the name of a node that it moves to another layout.
MOVED = re.compile(r"(_token_\d+|_nchwc)$")


def node_times(
    engine: str, model: str | Path | ir.Model, threads: int, feeds: Mapping[str, Any], runs: int
) -> list[Row]:
    """Mean time of each node that the engine runs, in the order of the first run.

    Raises:
        UsageError: the engine has no profile.

    """
    if engine == "reference":
        return _reference(model, feeds, runs)
    if engine == "onnxruntime":
        return _onnxruntime(model, threads, feeds, runs)
    raise UsageError(f"--profile: {engine} tells no times of nodes; use onnxruntime or reference")


def _reference(model: str | Path | ir.Model, feeds: Mapping[str, Any], runs: int) -> list[Row]:
    session = Session(model, profile=True)
    session.run(feeds)
    total: dict[tuple[str, str], float] = defaultdict(float)
    for _ in range(runs):
        session.run(feeds)
        for place, node in enumerate(session.profile()):
            total[node.node or f"#{place}", node.op] += node.ms
    return [(node, op, ms / runs) for (node, op), ms in total.items()]


def _onnxruntime(
    model: str | Path | ir.Model, threads: int, feeds: Mapping[str, Any], runs: int
) -> list[Row]:
    ort = require("onnxruntime", "engines")
    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with TemporaryDirectory(prefix="infertool-") as folder, as_file(model) as path:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = new_session(ort, path, options)
        for _ in range(runs + 1):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _averaged(events)


def _averaged(events: list[dict[str, Any]]) -> list[Row]:
    """Without each node's first run, which is a warm-up."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(KERNEL):
            op = str(event["args"].get("op_name", "?"))
            times[MOVED.sub("", name.removesuffix(KERNEL)), op].append(event["dur"] / 1e3)
    return [(n, op, sum(ms[1:]) / max(len(ms) - 1, 1)) for (n, op), ms in times.items()]
