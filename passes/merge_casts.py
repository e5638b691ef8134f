"""Casts after each other, and casts to the type of something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from passes.base import CLEANING, RewriteRule, is_op
from passes.match import producer, replace_node

if TYPE_CHECKING:
    from typing import Any


@dataclass(frozen=True)
class MergeCasts(RewriteRule):
    """A cast that loses nothing may be left out before another one.

    Given:  a = Cast<to=float>(x)   y = Cast<to=int64>(a)   x: int32 | bool | float16 ...
    Result: y = Cast<to=int64>(x)   and CastLike(x, like) of a known type is a Cast
    """

    name: ClassVar[str] = "merge-casts"
    level: ClassVar[int] = CLEANING

    def match(self, node: ir.Node) -> bool:
        """A Cast of a Cast, or a CastLike."""
        if is_op(node, "CastLike"):
            return True
        return is_op(node, "Cast") and producer(node.inputs[0], "Cast") is not None

    def check(self, node: ir.Node) -> str | None:
        """The first cast keeps every value."""
        if is_op(node, "CastLike"):
            return None if _target(node) is not None else "the type to cast to is not known"
        first = producer(node.inputs[0], "Cast")
        assert first is not None
        assert first.inputs[0] is not None
        source, middle, target = first.inputs[0].dtype, _target(first), _target(node)
        if source is None or middle is None or target is None:
            return "a type is not known"
        if not _keeps(source, middle, target):
            return f"casting {source.name} to {middle.name} may change a value"
        return None

    def rewrite(self, node: ir.Node) -> None:
        """Cast the first input."""
        first = producer(node.inputs[0], "Cast") if is_op(node, "Cast") else None
        value = node.inputs[0] if first is None else first.inputs[0]
        target = _target(node)
        assert target is not None
        replace_node(node, "Cast", [value], {"to": target.value})


def _target(node: ir.Node) -> ir.DataType | None:
    if is_op(node, "Cast"):
        return ir.DataType(node.attributes["to"].as_int())
    like = node.inputs[1]
    return None if like is None else like.dtype


def _keeps(source: ir.DataType, middle: ir.DataType, target: ir.DataType) -> bool:
    """Is the middle type able to hold every value, so that the target sees the same?

    From an integer by way of a float to a smaller integer what does not fit is cut in other ways.
    """
    plain = [t for t in (source, middle, target) if _plain(t) is not None]
    if len(plain) < 3:
        return False
    detour = source.is_integer() and middle.is_floating_point() and target.is_integer()
    if detour and not np.can_cast(source.numpy(), target.numpy(), "safe"):
        return False
    return bool(np.can_cast(source.numpy(), middle.numpy(), "safe"))


def _plain(kind: ir.DataType) -> np.dtype[Any] | None:
    """The type as NumPy's own; None for strings and the small floats."""
    try:
        dtype = kind.numpy()
    except TypeError:
        return None
    return dtype if dtype.kind in "biuf" and dtype.isbuiltin == 1 else None
