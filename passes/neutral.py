"""Which input of a node its output always equals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from passes.base import is_op
from passes.graph import constant
from passes.match import argument, dims, ints, scalar

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

FAR = 2**31 - 1  # exporters write "to the end" as this or as something larger


def passed_through(node: ir.Node) -> ir.Value | None:
    """The input that comes out unchanged, in value, shape and type; None when none does."""
    test = _TESTS.get(node.op_type) if is_op(node, node.op_type) else None
    return None if test is None or not node.inputs else test(node)


def _first(test: Callable[[ir.Node], bool]) -> Callable[[ir.Node], ir.Value | None]:
    return lambda node: node.inputs[0] if node.inputs[0] is not None and test(node) else None


def _same_shape(node: ir.Node) -> bool:
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    return before is not None and None not in before and before == after


def _reshape(node: ir.Node) -> bool:
    """All dimensions but one are named again; then the one left is the same too."""
    wanted, before = ints(node.inputs[1]), dims(node.inputs[0])
    if wanted is None or before is None or len(wanted) != len(before):
        return _same_shape(node)
    if 0 in wanted and bool(node.attributes.get_int("allowzero", 0)):
        return _same_shape(node)
    pairs = zip(wanted, before, strict=True)
    return all(w in (d, -1, 0) for w, d in pairs) or _same_shape(node)


def _dropout(node: ir.Node) -> bool:
    """Inference form whose mask nobody reads."""
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        training = constant(node.inputs[2])
        return training is not None and not bool(training)
    return True


def _transpose(node: ir.Node) -> bool:
    perm = node.attributes.get_ints("perm", None)
    return perm is not None and list(perm) == list(range(len(perm)))


def _cast(node: ir.Node) -> bool:
    value = node.inputs[0]
    return value is not None and value.dtype == node.attributes["to"].as_int()


def _pad(node: ir.Node) -> bool:
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not np.any(pads)


def _slice(node: ir.Node) -> bool:
    """From 0 to the end, one by one."""
    starts, ends = ints(argument(node, 1)), ints(argument(node, 2))
    steps = ints(node.inputs[4]) if argument(node, 4) is not None else [1]
    if starts is None or ends is None or steps is None:
        return False
    return not any(starts) and all(e >= FAR for e in ends) and set(steps) == {1}


def _neutral(element: float, sides: tuple[int, ...]) -> Callable[[ir.Node], ir.Value | None]:
    """Arithmetic with a constant of one element that changes no number and no shape."""

    def test(node: ir.Node) -> ir.Value | None:
        for side in sides:
            number, other = node.inputs[side], node.inputs[1 - side]
            if number is None or other is None or scalar(number) != element:
                continue
            known, size = dims(other), number.shape
            if known is not None and size is not None and len(size) <= len(known):
                return other
        return None

    return test


_TESTS: dict[str, Callable[[ir.Node], ir.Value | None]] = {
    "Identity": _first(lambda node: True),  # noqa: ARG005
    "Dropout": _first(_dropout),
    "Reshape": _first(_reshape),
    "Flatten": _first(_same_shape),
    "Expand": _first(_same_shape),
    "Transpose": _first(_transpose),
    "Cast": _first(_cast),
    "Pad": _first(_pad),
    "Slice": _first(_slice),
    "Concat": _first(lambda node: len(node.inputs) == 1),
    "Add": _neutral(0, (1, 0)),
    "Sub": _neutral(0, (1,)),
    "Mul": _neutral(1, (1, 0)),
    "Div": _neutral(1, (1,)),
    "Pow": _neutral(1, (1,)),
}
