"""Which operators of a program torch cannot write as ONNX, how often they occur, and where."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from infer_tool.quiet import quiet

SHOWN = 5
PLACE = re.compile(r'File "([^"]+)", line (\d+)')


def missing_operators(program: Any) -> str:
    """'no ONNX operator for aten.linalg_eig (2x), first at net.py:12; ...', or nothing.

    The exporter itself names only the first, in the middle of a page of advice.
    """
    nodes = _unregistered(program)
    if not nodes:
        return ""
    counts = Counter(_operator(node) for node in nodes)
    listed = ", ".join(f"{name} ({count}x)" for name, count in counts.most_common(SHOWN))
    places = PLACE.findall(nodes[0].meta.get("stack_trace") or "")
    where = f", first at {places[-1][0]}:{places[-1][1]}" if places else ""
    return (
        f"no ONNX operator for {listed}{where}; compute that part outside, "
        "or leave it out with --submodule"
    )


def _unregistered(program: Any) -> list[Any]:
    # Private modules of torch: where another version has none of them, its own message is shown.
    try:
        from torch.onnx._internal.exporter import _fx_passes, _registration

        with quiet():
            registry = _registration.ONNXRegistry.from_torchlib()
            graph = _fx_passes.decompose_with_registry(program, registry).graph
        return [
            node
            for node in graph.nodes
            if node.op == "call_function" and not registry.is_registered(node.target)
        ]
    except Exception:  # noqa: BLE001 - the error that made us ask is the one that is raised
        return []


def _operator(node: Any) -> str:
    return str(node.target).removesuffix(".default")
