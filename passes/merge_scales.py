"""Constants that are added or multiplied one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from passes.base import RewriteRule, is_op
from passes.graph import add_initializer, constant, is_constant
from passes.match import inner, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

SUMS, PRODUCTS = ("Add", "Sub"), ("Mul", "Div")


@dataclass(frozen=True)
class MergeScales(RewriteRule):
    """One constant.

    Given:  a = x * k   y = a / l      (or x + k - l)
    Result: y = x * (k / l)            for floats, where the new constant is as small as the old
    """

    name: ClassVar[str] = "merge-scales"

    def match(self, node: ir.Node) -> bool:
        """A value and a constant, of which the value is another such node."""
        side = _side(node)
        return side is not None and _before(node, side) is not None

    def check(self, node: ir.Node) -> str | None:
        """Floats; a constant that does not grow; nothing that leaves the range of the type."""
        first, _ = _chain(node)
        kind = node.outputs[0].dtype
        if kind is None or not kind.is_floating_point():
            return "it does not work on floats"
        merged = _merged(first, node)
        largest = max(_array(first).size, _array(node).size)
        if merged.size > largest:
            return "the constants are of different shapes"
        narrow = merged.astype(_array(node).dtype)
        if not np.all(np.isfinite(narrow)) or np.any((narrow == 0) != (merged == 0)):
            return "the merged constant leaves the range of its type"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Compute in float64, once."""
        first, _ = _chain(node)
        merged = _merged(first, node).astype(_array(node).dtype)
        source = first.inputs[_side_of(first)]
        name = f"{node.outputs[0].name}_constant"
        value = add_initializer(node.graph, name, merged)
        replace_node(node, _SAME[first.op_type, node.op_type], [source, value])


# a / k / l divides by the product: that rounds once less than multiplying by reciprocals.
_SAME = {(a, b): ("Div" if a == b == "Div" else "Mul") for a in PRODUCTS for b in PRODUCTS} | {
    (a, b): "Add" for a in SUMS for b in SUMS
}


def _side(node: ir.Node) -> int | None:
    """Which input is the value; Sub and Div only with the constant second."""
    if not is_op(node, *SUMS, *PRODUCTS) or len(node.inputs) != 2:
        return None
    if is_constant(node.inputs[1]) and not is_constant(node.inputs[0]):
        return 0
    swapped = is_op(node, "Add", "Mul") and is_constant(node.inputs[0])
    return 1 if swapped and not is_constant(node.inputs[1]) else None


def _side_of(node: ir.Node) -> int:
    side = _side(node)
    assert side is not None
    return side


def _before(node: ir.Node, side: int) -> ir.Node | None:
    family = SUMS if is_op(node, *SUMS) else PRODUCTS
    first = inner(node.inputs[side], node, *family)
    return first if first is not None and _side(first) is not None else None


def _chain(node: ir.Node) -> tuple[ir.Node, int]:
    side = _side_of(node)
    first = _before(node, side)
    assert first is not None
    return first, side


def _array(node: ir.Node) -> Array:
    array = constant(node.inputs[1 - _side_of(node)])
    assert array is not None
    return array


def _merged(first: ir.Node, node: ir.Node) -> Array:
    """In float64."""
    a, b = _array(first).astype(np.float64), _array(node).astype(np.float64)
    pair = (first.op_type, node.op_type)
    with np.errstate(all="ignore"):
        if _SAME[pair] == "Add":
            return np.asarray((a if pair[0] == "Add" else -a) + (b if pair[1] == "Add" else -b))
        if _SAME[pair] == "Div":
            return np.asarray(a * b)
        return np.asarray((a if pair[0] == "Mul" else 1 / a) * (b if pair[1] == "Mul" else 1 / b))
