"""Which layers become binary, and why others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from passes.base import Refusal, all_nodes, is_op
from passes.graph import constant
from quant.selection import LINEAR, weight_reason
from quant.sites import SMALLEST_WEIGHT
from quant.weight_only import check_excluded

if TYPE_CHECKING:
    import onnx_ir as ir

    from quant.binarize.config import BinarizeConfig

OTHERS = ("ConvTranspose", "LSTM", "GRU", "RNN", "Einsum")  # have weights and no binary form
MATRIX = 2


def choose(model: ir.Model, config: BinarizeConfig) -> tuple[list[ir.Node], list[Refusal]]:
    """The Conv, Gemm and MatMul of the main graph that become binary, in order; and refusals.

    Raises:
        UsageError: `exclude` names no node, or nothing is left.

    """
    check_excluded(model, config.exclude)
    layers = [n for n in model.graph if is_op(n, *LINEAR)]
    ends = set() if config.ends else {id(n) for n in _ends(layers)}
    inside = {id(n) for n in model.graph}
    chosen, refusals = [], []
    for node in all_nodes(model):
        if not is_op(node, *LINEAR, *OTHERS):
            continue
        reason = _reason(node, config)
        if reason is None and id(node) not in inside:
            reason = "it is in a branch or a loop"
        if reason is None and id(node) in ends:
            reason = "it is the first or the last layer; --ends includes them"
        if reason is None:
            chosen.append(node)
        else:
            refusals.append(Refusal(node.name or "?", node.op_type, reason))
    if not chosen:
        first = f": node {refusals[0].node}: {refusals[0].reason}" if refusals else ""
        raise UsageError(f"no layer of this model can become binary{first}")
    return chosen, refusals


def _ends(layers: list[ir.Node]) -> list[ir.Node]:
    """The first and the last layer with weights."""
    weighted = [n for n in layers if constant(n.inputs[1]) is not None]
    return [*weighted[:1], *weighted[-1:]]


def _reason(node: ir.Node, config: BinarizeConfig) -> str | None:
    """Why a layer stays in float; None when it becomes binary."""
    if node.name in config.exclude:
        return "excluded by the user"
    if is_op(node, *OTHERS):
        return f"{node.op_type} has no binary form"
    if reason := weight_reason(node):
        return reason
    weight = node.inputs[1]
    assert weight is not None
    array = constant(weight)
    assert array is not None
    if array.dtype.name != "float32":
        return f"its weight {weight.name} is {array.dtype}, not float32"
    if len(list(weight.uses())) > 1:
        return f"its weight {weight.name} is shared by {len(list(weight.uses()))} inputs"
    if array.size < SMALLEST_WEIGHT:
        return f"its weight {weight.name} has {array.size} elements; the scales would outweigh it"
    if is_op(node, "Conv") and node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return "its padding depends on the size of its input (auto_pad)"
    if is_op(node, "Gemm", "MatMul") and array.ndim != MATRIX:
        return f"its weight {weight.name} has {array.ndim} axes"
    if (count := _summed(node)) >= config.min_products:
        return None
    return f"it sums {count} products for an output, fewer than --min-products"


def _summed(node: ir.Node) -> int:
    """Products that are added up for one output."""
    array = constant(node.inputs[1])
    assert array is not None
    if is_op(node, "Conv"):
        return int(array[0].size)
    return int(array.shape[1 if node.attributes.get_int("transB", 0) else 0])
