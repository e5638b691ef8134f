"""Tensors of two models that mean the same, by their places in the graphs and their shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import UsageError
from passes.base import is_op
from quant.selection import LINEAR

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    import onnx_ir as ir

    Array = np.ndarray[Any, Any]

SEQUENCE, IMAGE = 3, 4  # axes with the samples


@dataclass(frozen=True)
class Tensor:
    """A value [samples, ...] of a model, and the axis of its channels."""

    name: str
    shape: tuple[int, ...]
    axis: int

    @property
    def places(self) -> tuple[int, ...]:
        """The sizes beside samples and channels; none where there is one place."""
        rest = tuple(d for i, d in enumerate(self.shape) if i not in (0, self.axis))
        return rest if any(d > 1 for d in rest) else ()


def tensors_of(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Tensor]:
    """Every float value with a sample on its first axis that weights have a part in, in order."""
    made = _made_by_weights(model)
    count = len(next(iter(feeds.values())))
    axis = 1 if _convolves_sequences(model) else 2
    found: dict[str, Tensor] = {}

    def observe(name: str, value: Array) -> None:
        if name in made and value.ndim > 1 and value.dtype.kind == "f" and len(value) == count:
            channels = axis if value.ndim == SEQUENCE else 1
            found[name] = Tensor(name, value.shape, channels)

    Session(model).run(feeds, [], observe=observe)
    order = (o.name or "" for n in model.graph for o in n.outputs)
    return {name: found[name] for name in order if name in found}


def _made_by_weights(model: ir.Model) -> set[str]:
    made: set[str] = set()
    for node in model.graph:
        read = {v.name or "" for v in node.inputs if v is not None}
        if is_op(node, *LINEAR, "ConvTranspose", "LSTM", "GRU", "RNN") or read & made:
            made |= {o.name or "" for o in node.outputs}
    return made


def _convolves_sequences(model: ir.Model) -> bool:
    """Are sequences [samples, channels, length], and not [samples, length, channels]?"""
    weights = (n.inputs[1] for n in model.graph if is_op(n, "Conv"))
    return any(w is not None and w.shape is not None and len(w.shape) == SEQUENCE for w in weights)


def matched(
    student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], ends: Collection[str]
) -> list[tuple[Tensor, Tensor]]:
    """The last tensors of each size of places that both models have.

    Args:
        student: its tensors, in order.
        teacher: the same of the teacher.
        ends: outputs of either model, which are no hints.

    Raises:
        UsageError: the models have no size in common.

    """
    mine, others = (_stages(t, ends) for t in (student, teacher))
    pairs = [(tensor, others[key]) for key, tensor in mine.items() if key in others]
    if not pairs:
        raise UsageError(
            "--match auto: no tensors of the two models have the same places; name pairs with "
            "--hint STUDENT=TEACHER"
        )
    return pairs


def _stages(tensors: Mapping[str, Tensor], ends: Collection[str]) -> dict[Any, Tensor]:
    """The last tensor of each size of places, by that size."""
    return {t.places: t for t in tensors.values() if t.name not in ends}
