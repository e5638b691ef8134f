"""LayerNormalization and InstanceNormalization from their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from passes.base import RewriteRule
from passes.graph import add_initializer
from passes.match import only_user, rank, replace_node
from passes.normalization import constant_beside, last_axes_reason, standardized

if TYPE_CHECKING:
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Parts:
    """(value - mean) / sqrt(variance + epsilon) * scale + bias; `last` computes the result."""

    value: ir.Value
    axes: list[int]
    epsilon: float
    scale: Array
    bias: Array
    last: ir.Node


class _FuseNormalization(RewriteRule):
    op_type: ClassVar[str]

    def match(self, node: ir.Node) -> bool:
        """The division by the deviation."""
        return _parts(node) is not None

    def rewrite(self, node: ir.Node) -> None:
        """One operator in the place of the last one."""
        parts = _parts(node)
        assert parts is not None
        attributes: dict[str, Any] = {"epsilon": parts.epsilon}
        arrays = [parts.scale, parts.bias]
        if self.op_type == "LayerNormalization":
            attributes["axis"] = -len(parts.axes)
        else:
            arrays = [array.reshape(-1) for array in arrays]
        name = parts.last.outputs[0].name
        weights = [
            add_initializer(node.graph, f"{name}_{what}", np.ascontiguousarray(array))
            for what, array in zip(("scale", "bias"), arrays, strict=True)
        ]
        replace_node(parts.last, self.op_type, [parts.value, *weights], attributes)


@dataclass(frozen=True)
class FuseLayerNorm(_FuseNormalization):
    """Normalisation over the last axes.

    Given:  d = x - ReduceMean(x)   y = d / Sqrt(ReduceMean(d^2) + e) * scale + bias
    Result: y = LayerNormalization<axis, epsilon=e>(x, scale, bias)
    """

    name: ClassVar[str] = "fuse-layer-norm"
    op_type: ClassVar[str] = "LayerNormalization"
    since: ClassVar[int] = 17

    def check(self, node: ir.Node) -> str | None:
        """The last axes, with constants for each of their elements."""
        parts = _parts(node)
        assert parts is not None
        return last_axes_reason(parts.value, parts.axes, parts.scale, parts.bias)


@dataclass(frozen=True)
class FuseInstanceNorm(_FuseNormalization):
    """Normalisation over all spatial axes.

    Given:  d = x - ReduceMean(x)   y = d / Sqrt(ReduceMean(d^2) + e) * scale + bias
    Result: y = InstanceNormalization<epsilon=e>(x, scale, bias)   scale and bias: [C, 1, 1]
    """

    name: ClassVar[str] = "fuse-instance-norm"
    op_type: ClassVar[str] = "InstanceNormalization"

    def check(self, node: ir.Node) -> str | None:
        """All axes but batch and channel, with constants for each channel."""
        parts = _parts(node)
        assert parts is not None
        size, count = rank(parts.value), len(parts.axes)
        if size is None or size != count + 2 or parts.axes != list(range(-count, 0)):
            return "the mean is not taken over all spatial axes"
        for array in (parts.scale, parts.bias):
            shape = array.shape[1:] if array.ndim == size and array.shape[0] == 1 else array.shape
            if array.size == 1 or shape != (array.size, *(1,) * count):
                return "scale and bias are not one number for each channel"
        return None


def _parts(node: ir.Node) -> _Parts | None:
    """Everything that the division by the deviation stands in; None when a part is missing."""
    core = standardized(node)
    tail = None if core is None else _tail(node)
    return None if core is None or tail is None else _Parts(*core, *tail)


def _tail(node: ir.Node) -> tuple[Array, Array, ir.Node] | None:
    """Scale, bias and the node that adds it."""
    times = only_user(node.outputs[0])
    scale = constant_beside(times, "Mul", node.outputs[0])
    if times is None or scale is None:
        return None
    add = only_user(times.outputs[0])
    bias = constant_beside(add, "Add", times.outputs[0])
    return None if add is None or bias is None else (scale, bias, add)
