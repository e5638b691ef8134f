"""`Session`: load a model once, run it many times, look at any value."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_runtime.errors import FeedError, ModelError
from infer_runtime.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infer_runtime.arrays import Array

    Observer = Callable[[str, Array], None]

# What stands for the dtype of a sequence, an optional value or an untyped input.
_NO_TENSOR = np.dtype("V")


@dataclass(frozen=True)
class TensorInfo:
    """Name, shape and dtype of an input or output; a dimension that is no int is dynamic."""

    name: str
    shape: tuple[int | str | None, ...] | None
    dtype: np.dtype[Any]


class Session:
    """A model ready to run on NumPy.

    Args:
        model: a file or an `onnx_ir.Model`; the model is not changed.

    Raises:
        ModelError: the file cannot be read, or the graph is not valid.
        UnsupportedOpError: operators without a kernel, all of them in one error.

    """

    def __init__(self, model: str | os.PathLike[str] | ir.Model) -> None:
        loaded = _load(model) if isinstance(model, (str, os.PathLike)) else model
        graph = _inlined(loaded).graph
        self._plan = Plan(graph, loaded.opset_imports)
        given = tuple(_info(v) for v in graph.inputs)
        self.inputs = tuple(i for i in given if i.name not in graph.initializers)
        self.outputs = tuple(_info(v) for v in graph.outputs)
        # Inputs that are initialisers too have a default, which a feed may replace.
        self._feedable = {i.name: i for i in given}

    def run(
        self,
        feeds: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        *,
        observe: Observer | None = None,
    ) -> dict[str, Array]:
        """Compute outputs, or any named values of the main graph.

        Args:
            feeds: an array for each input.
            outputs: names to return instead of the model's outputs.
            observe: called with the name and the array of each value of the main graph as it
                appears, inputs first; the array must not be changed.

        Raises:
            FeedError: a name, shape or dtype does not fit the model.
            KernelError: a node cannot be computed.

        """
        values = self._checked(feeds)
        names = [o.name for o in self.outputs] if outputs is None else list(outputs)
        if unknown := [n for n in names if not self._plan.knows(n)]:
            raise FeedError(f"the model has no value named {unknown[0]!r}")
        found = self._plan.run(values, names, observe)
        return {name: found[name] for name in names}

    def _checked(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        names = [i.name for i in self.inputs]
        if missing := [n for n in names if n not in feeds]:
            raise FeedError(f"input {missing[0]!r} has no feed; the inputs are {names}")
        if unknown := [n for n in feeds if n not in self._feedable]:
            raise FeedError(f"no input named {unknown[0]!r}; the inputs are {names}")
        return {name: checked_feed(self._feedable[name], v) for name, v in feeds.items()}


def checked_feed(info: TensorInfo, value: Array) -> Array:
    """The value as an array that fits the input; sequences and optionals stay as they are.

    Raises:
        FeedError: another dtype, rank or fixed dimension.

    """
    if info.dtype == _NO_TENSOR:
        return value
    array = np.asarray(value)
    is_text = array.dtype.kind in "OUS" and info.dtype.kind == "O"
    if array.dtype != info.dtype and not is_text:
        raise FeedError(f"input {info.name!r}: dtype {array.dtype}, expected {info.dtype}")
    if info.shape is not None and not _fits(array.shape, info.shape):
        expected = ", ".join("?" if d is None else str(d) for d in info.shape)
        raise FeedError(f"input {info.name!r}: shape {list(array.shape)}, expected [{expected}]")
    return array


def _fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or n == want for n, want in zip(shape, wanted, strict=True)
    )


def _load(path: str | os.PathLike[str]) -> ir.Model:
    from google.protobuf.message import DecodeError

    try:
        return ir.load(path)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(f"{Path(path)}: not a readable ONNX model: {error}") from error


def _inlined(model: ir.Model) -> ir.Model:
    """Model-local functions become part of the graph, on a copy."""
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    return InlinePass()(model.clone()).model


def _info(value: ir.Value) -> TensorInfo:
    if not isinstance(value.type, ir.TensorType):
        return TensorInfo(value.name or "", None, _NO_TENSOR)
    return TensorInfo(value.name or "", _shape(value.shape), np.dtype(value.type.dtype.numpy()))


def _shape(shape: ir.Shape | None) -> tuple[int | str | None, ...] | None:
    if shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in shape)
