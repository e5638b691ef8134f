"""Are results equal to their source, and how fast? `python judge.py ROUNDS SOURCE RESULT...`

Equality with ONNX Runtime's optimisations off; latency with its defaults, at one
thread, in turns, over that of the source. Prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from inputs import feeds

WARM_UP = 3


def open_session(path: str, optimised: bool) -> Any:
    """A session at one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def interface(path: str) -> list[Any]:
    """Names, types and dimensions, in order, as the file declares them."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    values = [*(v for v in graph.input if v.name not in constants), *graph.output]
    return [[v.name, v.type.tensor_type.elem_type, _dims(v.type.tensor_type)] for v in values]


def _dims(kind: Any) -> list[Any]:
    """Some exporters write a dynamic dimension as -1."""
    dims = kind.shape.dim
    fixed = [d.WhichOneof("value") == "dim_value" and d.dim_value >= 0 for d in dims]
    return [d.dim_value if f else d.dim_param for d, f in zip(dims, fixed, strict=True)]


def check(session: Any, given: dict[str, Any], wanted: list[Any]) -> float:
    """The largest error of an output over its largest value."""
    names = [i.name for i in session.get_inputs()]
    found = session.run(None, dict(zip(names, given.values(), strict=True)))
    errors = [
        float(np.abs(f.astype(np.float64) - w).max() / max(np.abs(w).max(), 1e-30))
        if f.shape == w.shape
        else float("inf")
        for f, w in zip(found, wanted, strict=True)
        if w.size
    ]
    return max(errors, default=0.0)


def latencies(sessions: list[Any], given: dict[str, Any], rounds: int) -> list[float]:
    """Of each session over the first one: the median over turns, as the machine's load varies."""
    times = np.zeros((WARM_UP + rounds, len(sessions)))
    for turn in range(len(times)):
        for index in np.roll(np.arange(len(sessions)), turn):
            names = [i.name for i in sessions[index].get_inputs()]
            arrays = dict(zip(names, given.values(), strict=True))
            start = time.perf_counter()
            sessions[index].run(None, arrays)
            times[turn, index] = time.perf_counter() - start
    ratios = times[WARM_UP:] / times[WARM_UP:, :1]
    return [float(r) for r in np.median(ratios, axis=0)]


def main(rounds: int, source: str, results: list[str]) -> dict[str, Any]:
    """One entry for each file; a result that does not load or run has an error text."""
    plain = open_session(source, optimised=False)
    given = feeds(Path(source).stem, plain.get_inputs())
    wanted = plain.run(None, given)
    entries: dict[str, Any] = {source: {"interface": True, "error": 0.0}}
    for path in results:
        try:
            error = check(open_session(path, optimised=False), given, wanted)
            entries[path] = {"interface": interface(path) == interface(source), "error": error}
        except Exception as error:  # noqa: BLE001 - it is the finding
            entries[path] = {"failed": str(error).splitlines()[0][:100]}
    fine = [path for path, entry in entries.items() if "failed" not in entry]
    sessions = [open_session(path, optimised=True) for path in fine]
    for path, value in zip(fine, latencies(sessions, given, rounds), strict=True):
        entries[path]["latency"] = value
    return entries


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])))
