"""Reading rows of a quantised table: look up levels and scales, then make numbers of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from passes.graph import fresh_name, remove_node, replace_value, take_description
from quant.formats import FloatFormat, IntegerFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quant.formats import Format
    from quant.store import Store
    from quant.tensor import QuantizedTensor


def table_reason(node: ir.Node, form: Format) -> str | None:
    """Why rows cannot be looked up in this form; None when they can."""
    table = node.inputs[0]
    if table is None or table.shape is None or len(table.shape) != 2:
        return "its table has not two axes"
    if isinstance(form, IntegerFormat) and form.bits == 8:
        return None
    if isinstance(form, FloatFormat) and not form.scaled:
        return None
    return f"rows of {form.name} cannot be looked up"


def read_table(store: Store, name: str, table: QuantizedTensor, gathers: Sequence[ir.Node]) -> None:
    """Let the Gathers read levels [rows, width] and, behind them, scales [rows, 1]."""
    levels = store.constant(f"{name}_q", table.levels)
    affine = isinstance(table.format, IntegerFormat)
    scales = store.constant(f"{name}_s", table.scale.reshape(-1, 1)) if affine else None
    zeros = None
    if table.zero_point is not None:
        zeros = store.constant(f"{name}_z", table.zero_point.astype(np.float32).reshape(-1, 1))
    for node in gathers:
        _read(node, levels, scales, zeros)


def _read(node: ir.Node, levels: ir.Value, scales: ir.Value | None, zeros: ir.Value | None) -> None:
    """Put the chain in front of the node, whose readers it then takes over."""
    result = _before(node, "Gather", [levels, node.inputs[1]], axis=0)
    result = _before(node, "Cast", [result], to=int(ir.DataType.FLOAT))
    if zeros is not None:
        rows = _before(node, "Gather", [zeros, node.inputs[1]], axis=0)
        result = _before(node, "Sub", [result, rows])
    if scales is not None:
        rows = _before(node, "Gather", [scales, node.inputs[1]], axis=0)
        result = _before(node, "Mul", [result, rows])
    take_description(result, node.outputs[0])
    replace_value(node.outputs[0], result)
    remove_node(node)


def _before(
    node: ir.Node, op_type: str, inputs: list[ir.Value | None], **attributes: int
) -> ir.Value:
    graph = node.graph
    assert graph is not None
    new = ir.node(op_type, inputs, attributes=attributes)
    new.name = fresh_name(graph, f"{node.name}_{op_type.lower()}")
    new.outputs[0].name = new.name
    graph.insert_before(node, new)
    return new.outputs[0]
