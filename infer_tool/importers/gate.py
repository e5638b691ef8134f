"""The gate that every imported model passes, whatever it was before."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError, UnsupportedOpError, UsageError
from infer_runtime.registry import find_kernel
from infer_tool.importers.normalise import bodies
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from infer_tool.importers import Outputs, Run

NEWEST = 26  # the ceiling of ONNX Runtime
SHOWN = 5


def check(model: ir.Model, source: str) -> None:
    """No operator that nobody knows, no opset beyond what engines read.

    Raises:
        UnsupportedOpError: naming the operators, how often they occur, and the first node.
        ModelError: the opset is out of range.

    """
    if opset(model) > NEWEST:
        raise ModelError(f"{source}: opset {opset(model)} is beyond {NEWEST}")
    unknown = _unknown(model)
    if unknown:
        counts = Counter(_shown(node) for node in unknown)
        listed = ", ".join(f"{op} ({count}x)" for op, count in counts.most_common(SHOWN))
        raise UnsupportedOpError(
            f"{source}: no ONNX operator for {listed}, first at node {unknown[0].name!r}; "
            "leave that part out with --output-name or --submodule and compute it outside"
        )


def _unknown(model: ir.Model) -> list[ir.Node]:
    import onnx.defs

    functions = {(f.domain, f.name) for f in model.functions.values()}
    version = opset(model)
    return [
        node
        for body in bodies(model)
        for node in body.all_nodes()
        if (node.domain, node.op_type) not in functions
        and not (not node.domain and onnx.defs.has(node.op_type))
        and find_kernel(node.domain, node.op_type, version) is None
    ]


def _shown(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def keep_outputs(model: ir.Model, names: Sequence[str], source: str) -> None:
    """Make these the only outputs, in this order.

    Raises:
        UsageError: the model has no such output.

    """
    found = {value.name: value for value in model.graph.outputs}
    for name in names:
        if name not in found:
            shown = ", ".join(str(known) for known in found)
            raise UsageError(f"--output-name {name}: {source} has {shown}")
    model.graph.outputs[:] = [found[name] for name in dict.fromkeys(names)]


def only(run: Run, names: Sequence[str]) -> Run:
    """Run with these outputs only."""

    def chosen(feeds: Mapping[str, Any]) -> Outputs:
        outputs = run(feeds)
        return {name: outputs[name] for name in dict.fromkeys(names)}

    return chosen
