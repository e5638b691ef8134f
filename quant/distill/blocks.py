"""Students made of the teacher by leaving out residual blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from passes.base import is_op
from passes.graph import forget_names, replace_value
from passes.infer_shapes import InferShapes
from passes.match import dims
from passes.remove_unused import RemoveUnused
from passes.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

BOTH = 2  # inputs of a sum


def blocks_of(model: ir.Model) -> list[str]:
    """Names of the additions that end a block whose input, of the same shape, is added to it."""
    return [node.name or "" for node in model.graph if _input_of(node) is not None]


def _input_of(node: ir.Node) -> ir.Value | None:
    """What goes around a block that ends in this node."""
    values = [v for v in node.inputs if v is not None and v.producer() is not None]
    if not is_op(node, "Add") or len(values) < BOTH or node.outputs[0].is_graph_output():
        return None
    for around, through in (values, values[::-1]):
        shape = dims(around)
        same = shape is not None and None not in shape[1:] and shape == dims(node.outputs[0])
        if same and _comes_from(through, around):
            return around
    return None


def _comes_from(value: ir.Value, source: ir.Value) -> bool:
    """Is `source` read on the way to `value`?"""
    seen: set[ir.Node] = set()
    left = [value.producer()]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if any(v is source for v in node.inputs):
            return True
        left += [v.producer() for v in node.inputs if v is not None]
    return False


def without(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy in which these blocks return their inputs."""
    copy = model.clone()
    forget_names(copy)
    for node in list(copy.graph):
        if node.name not in names or (around := _input_of(node)) is None:
            continue
        replace_value(node.outputs[0], around)
    RemoveUnused().apply(copy)
    InferShapes().apply(copy)
    verify(copy)
    return copy


def drop_blocks(
    model: ir.Model, share: float, loss: Callable[[ir.Model], float]
) -> tuple[ir.Model, dict[str, float], list[str]]:
    """A copy without this share of the blocks, those whose absence costs the least loss.

    Returns:
        The copy, the loss without each of the blocks, and the names of those that went.

    Raises:
        UsageError: the model has no such blocks.

    """
    names = blocks_of(model)
    if not names:
        raise UsageError(
            "--drop-blocks: the model has no residual block whose input and output have the same "
            "shape"
        )
    costs = {name: loss(without(model, [name])) for name in names}
    gone = sorted(names, key=lambda n: costs[n])[: max(1, round(share * len(names)))]
    return without(model, gone), costs, gone
