"""`infertool inspect`: what is in a model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_tool.ledger import new_report
from infer_tool.report.memory import memory_tables
from infer_tool.report.write import check_report_folder
from infer_tool.steps import load_model
from infer_tool.units import parse_shape, show_bytes
from passes.facts import macs_by_node
from passes.sizes import input_sizes

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_runtime import TensorInfo
    from infer_tool.config import Inspect
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal


def run(config: Inspect, ui: Terminal) -> Report:
    """Describe the model: inputs, outputs, operators, every node with `layers`, and its memory.

    Raises:
        UsageError: a path is wrong, a shape does not fit, or memory needs one.
        ModelError: the file cannot be read.

    """
    check_report_folder(config.report)
    report = new_report("inspect", config)
    model = load_model(report, ui, config.model, config).model
    report.stages = []
    session = Session(model)
    report.details["Interface"] = _interface(session.inputs, session.outputs)
    given = dict(parse_shape(text) for text in config.shape)
    macs = macs_by_node(model, input_sizes(session.inputs, given) if given else None)
    report.details["Operators"] = _operators(model, macs)
    if config.layers:
        report.details["Layers"] = _layers(model, macs)
    if config.memory:
        found, unknown = memory_tables(model, input_sizes(session.inputs, given))
        report.details |= found
        report.warnings += unknown
    return report


def _interface(inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> dict[str, Any]:
    rows = [
        [kind, info.name, _shape(info.shape), str(info.dtype)]
        for kind, side in (("input", inputs), ("output", outputs))
        for info in side
    ]
    return {"columns": ["kind", "name", "shape", "dtype"], "rows": rows}


def _shape(shape: Any) -> str:
    return "unknown" if shape is None else "x".join("?" if d is None else str(d) for d in shape)


def _operators(model: ir.Model, macs: dict[str, int]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    cost: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        op = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        counts[op] += 1
        cost[op] += macs.get(node.name or "", 0)
    total = sum(cost.values()) or 1
    rows = [
        [op, count, f"{cost[op]:,}", f"{100 * cost[op] / total:.1f} %"]
        for op, count in counts.most_common()
    ]
    return {"columns": ["operator", "count", "MACs", "share"], "rows": rows}


def _layers(model: ir.Model, macs: dict[str, int]) -> dict[str, Any]:
    rows = [
        [
            node.name,
            node.op_type,
            _value_shape(node),
            show_bytes(_weight_bytes(node)),
            f"{macs.get(node.name or '', 0):,}",
        ]
        for node in model.graph
    ]
    return {"columns": ["node", "op", "output shape", "weights", "MACs"], "rows": rows}


def _value_shape(node: ir.Node) -> str:
    shape = node.outputs[0].shape if node.outputs else None
    return "?" if shape is None else "x".join(str(d) for d in shape)


def _weight_bytes(node: ir.Node) -> int:
    return sum(
        value.const_value.nbytes
        for value in node.inputs
        if value is not None and value.is_initializer() and value.const_value is not None
    )
