"""How an operator is written when its input comes with its axes in another order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from passes.base import is_op
from passes.graph import is_constant
from passes.match import argument, dims, ints, pad_sizes, rank
from passes.permutations import Perm, narrow, turned_by, widen
from passes.traits import is_broadcasting, is_reshaping, is_unary
from passes.unit_reshape import turn_reshape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir


@dataclass(frozen=True)
class Turned:
    """What changes in a node; `data` are the inputs that come turned, constants among them.

    They come turned by `reads`, and the outputs are turned by `gives`. `vectors` are small
    constants in the place of old ones, None for an input that goes.
    """

    reads: Perm
    gives: Perm
    data: tuple[int, ...] = (0,)
    attributes: dict[str, Any] = field(default_factory=dict)
    vectors: dict[int, list[Any] | None] = field(default_factory=dict)


def turn(node: ir.Node, value: ir.Value, perm: Perm) -> Turned | None:
    """The node when this input or output of it is turned; None where no such node is known."""
    if not is_op(node, node.op_type):
        return None
    if is_unary(node):
        return Turned(perm, perm)
    if is_broadcasting(node) or is_op(node, "PRelu"):
        return _broadcast(node, perm)
    made = value in node.outputs
    if is_reshaping(node):
        return _reshape(node, perm, made)
    if _drops(node):
        return _drop(node, perm, made)
    rule = _RULES.get(node.op_type)
    return None if rule is None else rule(node, perm)


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
    return Turned(perm, perm, tuple(data)) if data else None


def _reshape(node: ir.Node, perm: Perm, made: bool) -> Turned | None:
    found = turn_reshape(node, perm, made)
    if found is None:
        return None
    reads, gives, vector = found
    return Turned(reads, gives, vectors={1: vector})


def _drops(node: ir.Node) -> bool:
    """Does it work along some axes, which then are gone?"""
    if is_op(node, "Gather"):
        return rank(node.inputs[1]) == 0
    reduces = node.op_type in _REDUCE or is_op(node, "ArgMax", "ArgMin")
    return reduces and node.attributes.get_int("keepdims", 1) == 0


def _drop(node: ir.Node, perm: Perm, made: bool) -> Turned | None:
    if node.op_type not in _REDUCE:
        axes: list[int] | None = [node.attributes.get_int("axis", 0)]
    elif argument(node, 1) is not None:
        axes = ints(node.inputs[1])
    else:
        axes = None if made else list(range(len(perm)))
    if not axes:
        return None
    size = len(perm) + (len(axes) if made else 0)
    gone = [axis % size for axis in axes]
    reads = widen(perm, gone) if made else perm
    gives, places = narrow(reads, gone), sorted(_places(gone, reads))
    if node.op_type not in _REDUCE:
        return Turned(reads, gives, attributes={"axis": places[0]})
    return Turned(reads, gives, vectors={} if argument(node, 1) is None else {1: places})


def _places(axes: Sequence[int], perm: Perm) -> list[int]:
    return [perm.index(a % len(perm)) for a in axes]


def _axis(default: int) -> Callable[[ir.Node, Perm], Turned | None]:
    """Operators whose attribute names one axis, and whose result has the same number of them."""

    def rule(node: ir.Node, perm: Perm) -> Turned | None:
        place = node.attributes.get_int("axis", default) % len(perm)
        return Turned(perm, perm, attributes={"axis": perm.index(place)})

    return rule


def _concat(node: ir.Node, perm: Perm) -> Turned | None:
    axis = perm.index(node.attributes["axis"].as_int() % len(perm))
    return Turned(perm, perm, tuple(range(len(node.inputs))), {"axis": axis})


def _gather(node: ir.Node, perm: Perm) -> Turned | None:
    """With a vector of indices the axis stays."""
    return _axis(0)(node, perm) if rank(node.inputs[1]) == 1 else None


def _reduce(node: ir.Node, perm: Perm) -> Turned | None:
    if argument(node, 1) is None:
        return Turned(perm, perm)
    axes = ints(node.inputs[1])
    return Turned(perm, perm, vectors={1: sorted(_places(axes, perm))}) if axes else None


def _slice(node: ir.Node, perm: Perm) -> Turned | None:
    axes = ints(argument(node, 3))
    if argument(node, 3) is None:
        count = dims(node.inputs[1])
        axes = list(range(count[0])) if count and isinstance(count[0], int) else None
    return None if axes is None else Turned(perm, perm, vectors={3: _places(axes, perm)})


def _pad(node: ir.Node, perm: Perm) -> Turned | None:
    sizes = pad_sizes(node)
    if sizes is None or len(sizes) != 2 * len(perm):
        return None
    ends = turned_by(sizes[len(perm) :], perm)
    return Turned(perm, perm, vectors={1: turned_by(sizes[: len(perm)], perm) + ends, 3: None})


def _vector(node: ir.Node, perm: Perm) -> Turned | None:
    """Tile and Expand: one number for each axis."""
    numbers = ints(node.inputs[1])
    if numbers is None or len(numbers) != len(perm) or rank(node.inputs[0]) != len(perm):
        return None
    return Turned(perm, perm, vectors={1: turned_by(numbers, perm)})


def _accumulate(node: ir.Node, perm: Perm) -> Turned | None:
    axis = ints(node.inputs[1])
    return None if axis is None else Turned(perm, perm, vectors={1: _places(axis, perm)})


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
    if before is None or any(by_axis.get(a, before[a]) != before[a] for a in perm[:2]):
        return None
    places = sorted(perm.index(a) for a in by_axis)
    attributes = {"axes": places} if "axes" in node.attributes else {}
    vector = [by_axis[perm[place]] for place in places]
    return Turned(perm, perm, attributes=attributes, vectors={index: vector})


def _numbers(value: ir.Value | None) -> list[Any] | None:
    if value is None or not is_constant(value) or value.const_value is None:
        return None
    found: list[Any] = value.const_value.numpy().reshape(-1).tolist()
    return found


def _quantize(node: ir.Node, perm: Perm) -> Turned | None:
    """One scale, or one for each position of an axis."""
    scale = argument(node, 1)
    blocked = node.attributes.get_int("block_size", 0) != 0
    if scale is None or rank(scale) not in (0, 1) or blocked:
        return None
    if rank(scale) == 0 or dims(scale) == (1,):
        return Turned(perm, perm)
    return _axis(1)(node, perm)


_REDUCE = frozenset(
    f"Reduce{name}"
    for name in (
        "L1",
        "L2",
        "LogSum",
        "LogSumExp",
        "Max",
        "Mean",
        "Min",
        "Prod",
        "Sum",
        "SumSquare",
    )
)
_RULES: dict[str, Callable[[ir.Node, Perm], Turned | None]] = {
    "ArgMax": _axis(0),
    "ArgMin": _axis(0),
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
    "Tile": _vector,
    "TopK": _axis(-1),
    **dict.fromkeys(_REDUCE, _reduce),
}
