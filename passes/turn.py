"""How an operator is written when its input comes with its axes in another order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.base import is_op
from passes.graph import is_constant
from passes.match import argument, dims, ints, pad_sizes, rank
from passes.traits import is_broadcasting, is_unary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir

Perm = tuple[int, ...]  # axis i of the turned value is axis perm[i] of the other


@dataclass(frozen=True)
class Turned:
    """What changes in a node; `data` are the inputs that come turned, constants among them.

    `vectors` are small constants in the place of old ones, None for an input that goes. A node
    that `keeps` has the same outputs as before; of all others they come turned.
    """

    data: tuple[int, ...] = (0,)
    attributes: dict[str, Any] = field(default_factory=dict)
    vectors: dict[int, list[int] | list[float] | None] = field(default_factory=dict)
    keeps: bool = False


def turn(node: ir.Node, perm: Perm) -> Turned | None:
    """The node for inputs turned by `perm`; None where there is no such node, or none is known."""
    if not is_op(node, node.op_type):
        return None
    if is_unary(node):
        return Turned()
    if is_broadcasting(node) or is_op(node, "PRelu"):
        return _broadcast(node, perm)
    rule = _RULES.get(node.op_type)
    if rule is None or rank(node.inputs[0]) not in (len(perm), None):
        return None
    return rule(node, perm)


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes it."""
    return tuple(perm.index(i) for i in range(len(perm)))


def _broadcast(node: ir.Node, perm: Perm) -> Turned | None:
    """Scalars stay; constants may have fewer axes, other values may not."""
    data = []
    for index, value in enumerate(node.inputs):
        size = rank(value)
        if value is None or size is None or size > len(perm):
            return None
        if size == len(perm) or (size > 0 and is_constant(value)):
            data.append(index)
        elif size > 0:
            return None
    return Turned(tuple(data)) if data else None


def _axis(default: int) -> Callable[[ir.Node, Perm], Turned | None]:
    """Operators whose attribute names one axis, and whose result has the same number of them."""

    def rule(node: ir.Node, perm: Perm) -> Turned | None:
        axis = node.attributes.get("axis")
        place = default if axis is None else axis.as_int()
        return Turned(attributes={"axis": perm.index(place % len(perm))})

    return rule


def _concat(node: ir.Node, perm: Perm) -> Turned | None:
    axis = perm.index(node.attributes["axis"].as_int() % len(perm))
    return Turned(tuple(range(len(node.inputs))), {"axis": axis})


def _gather(node: ir.Node, perm: Perm) -> Turned | None:
    """With a vector of indices the axis stays, with a number it goes."""
    size, axis = rank(node.inputs[1]), node.attributes.get_int("axis", 0) % len(perm)
    if size not in (0, 1):
        return None
    turned = {"axis": perm.index(axis)}
    if size == 1:
        return Turned(attributes=turned)
    return Turned(attributes=turned, keeps=True) if _same_left(perm, [axis]) else None


def _same_left(perm: Perm, gone: Sequence[int]) -> bool:
    """Are the other axes in the same order as before?"""
    left = [axis for axis in perm if axis not in gone]
    return left == sorted(left)


def _squeeze(node: ir.Node, perm: Perm) -> Turned | None:
    axes = ints(argument(node, 1))
    if axes is None or not _same_left(perm, [a % len(perm) for a in axes]):
        return None
    return Turned(vectors={1: _places(axes, perm)}, keeps=True)


def _places(axes: Sequence[int], perm: Perm) -> list[int]:
    return [perm.index(a % len(perm)) for a in axes]


def _reduce(node: ir.Node, perm: Perm) -> Turned | None:
    given, keepdims = argument(node, 1), bool(node.attributes.get_int("keepdims", 1))
    if given is None:
        return Turned(keeps=not keepdims)
    axes = ints(given)
    if axes is None or not axes:
        return None
    if not keepdims and not _same_left(perm, [a % len(perm) for a in axes]):
        return None
    return Turned(vectors={1: sorted(_places(axes, perm))}, keeps=not keepdims)


def _arg_reduce(node: ir.Node, perm: Perm) -> Turned | None:
    axis = node.attributes.get_int("axis", 0) % len(perm)
    keeps = node.attributes.get_int("keepdims", 1) == 0
    if keeps and not _same_left(perm, [axis]):
        return None
    return Turned(attributes={"axis": perm.index(axis)}, keeps=keeps)


def _slice(node: ir.Node, perm: Perm) -> Turned | None:
    axes = ints(argument(node, 3))
    if argument(node, 3) is None:
        count = dims(node.inputs[1])
        axes = list(range(count[0])) if count and isinstance(count[0], int) else None
    return None if axes is None else Turned(vectors={3: _places(axes, perm)})


def _pad(node: ir.Node, perm: Perm) -> Turned | None:
    sizes = pad_sizes(node)
    if sizes is None or len(sizes) != 2 * len(perm):
        return None
    ends = [sizes[len(perm) + a] for a in perm]
    return Turned(vectors={1: [sizes[a] for a in perm] + ends, 3: None})


def _vector(node: ir.Node, perm: Perm) -> Turned | None:
    """Tile and Expand: one number for each axis."""
    numbers = ints(node.inputs[1])
    if numbers is None or len(numbers) != len(perm) or rank(node.inputs[0]) != len(perm):
        return None
    return Turned(vectors={1: [numbers[a] for a in perm]})


def _accumulate(node: ir.Node, perm: Perm) -> Turned | None:
    axis = ints(node.inputs[1])
    return None if axis is None else Turned(vectors={1: _places(axis, perm)})


def _resize(node: ir.Node, perm: Perm) -> Turned | None:
    """Only into the layout in which engines know all modes: the last axes change their size."""
    cropping = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    index = 2 if argument(node, 2) is not None else 3
    numbers = _numbers(argument(node, index))
    axes = node.attributes.get_ints("axes", None) or range(len(perm))
    if numbers is None or len(numbers) != len(axes) or cropping == "tf_crop_and_resize":
        return None
    by_axis = dict(zip((a % len(perm) for a in axes), numbers, strict=True))
    before = dims(node.inputs[0]) if index == 3 else (1.0,) * len(perm)
    if before is None or any(_changes(by_axis, before, a) for a in perm[:2]):
        return None
    places = sorted(perm.index(a) for a in by_axis)
    vector = [by_axis[perm[place]] for place in places]
    attributes = {"axes": places} if "axes" in node.attributes else {}
    return Turned(attributes=attributes, vectors={index: vector})


def _changes(by_axis: dict[int, Any], before: Sequence[Any], axis: int) -> bool:
    return axis in by_axis and by_axis[axis] != before[axis]


def _numbers(value: ir.Value | None) -> list[Any] | None:
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    found: list[Any] = value.const_value.numpy().reshape(-1).tolist()
    return found


def _quantize(node: ir.Node, perm: Perm) -> Turned | None:
    """One scale, or one for each position of an axis."""
    scale = argument(node, 1)
    size = rank(scale)
    blocked = node.attributes.get_int("block_size", 0) != 0
    if scale is None or size not in (0, 1) or blocked:
        return None
    if size == 0 or dims(scale) == (1,):
        return Turned()
    axis = node.attributes.get_int("axis", 1) % len(perm)
    return Turned(attributes={"axis": perm.index(axis)})


_REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_RULES: dict[str, Callable[[ir.Node, Perm], Turned | None]] = {
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "Concat": _concat,
    "CumSum": _accumulate,
    "DequantizeLinear": _quantize,
    "Expand": _vector,
    "Gather": _gather,
    "Hardmax": _axis(-1),
    "LogSoftmax": _axis(-1),
    "LpNormalization": _axis(-1),
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _axis(-1),
    "Split": _axis(0),
    "Squeeze": _squeeze,
    "Tile": _vector,
    "TopK": _axis(-1),
    **{f"Reduce{name}": _reduce for name in _REDUCE},
}


def turned_array(array: np.ndarray[Any, Any], perm: Perm) -> np.ndarray[Any, Any]:
    """A constant turned, after it got the axes that broadcasting would give it."""
    wide = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    return np.ascontiguousarray(wide.transpose(perm))
