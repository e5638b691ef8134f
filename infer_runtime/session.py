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

    Array = np.ndarray[Any, Any]
    Observer = Callable[[str, Array], None]


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
        UnsupportedOpError: an operator has no kernel.

    """

    def __init__(self, model: str | os.PathLike[str] | ir.Model) -> None:
        loaded = _load(model) if isinstance(model, (str, os.PathLike)) else model
        loaded = _inlined(loaded)
        self._plan = Plan(loaded.graph, loaded.opset_imports)
        constants = loaded.graph.initializers
        self.inputs = tuple(_info(v) for v in loaded.graph.inputs if v.name not in constants)
        self._overridable = {v.name for v in loaded.graph.inputs if v.name in constants}
        self.outputs = tuple(_info(v) for v in loaded.graph.outputs)

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
        self._check(feeds)
        names = [o.name for o in self.outputs] if outputs is None else list(outputs)
        unknown = [n for n in names if not self._plan.knows(n)]
        if unknown:
            raise FeedError(f"the model has no value named {unknown[0]!r}")
        values = {name: np.asarray(array) for name, array in feeds.items()}
        found = self._plan.run(values, names, observe)
        return {name: found[name] for name in names}

    def _check(self, feeds: Mapping[str, Array]) -> None:
        wanted = {i.name: i for i in self.inputs}
        if missing := [n for n in wanted if n not in feeds]:
            raise FeedError(f"input {missing[0]!r} has no feed; the inputs are {list(wanted)}")
        for name, value in feeds.items():
            if name in wanted:
                check_feed(wanted[name], np.asarray(value))
            elif name not in self._overridable:
                raise FeedError(f"no input named {name!r}; the inputs are {list(wanted)}")


def check_feed(info: TensorInfo, value: Array) -> None:
    """FeedError when an array does not fit an input."""
    if value.dtype != info.dtype and info.dtype != np.dtype(object):
        raise FeedError(f"input {info.name!r}: dtype {value.dtype}, expected {info.dtype}")
    if info.shape is None:
        return
    fits = len(info.shape) == value.ndim and all(
        not isinstance(d, int) or d == n for d, n in zip(info.shape, value.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("?" if d is None else str(d) for d in info.shape)
        raise FeedError(f"input {info.name!r}: shape {list(value.shape)}, expected [{expected}]")


def _load(path: str | os.PathLike[str]) -> ir.Model:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

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

    copy = model.clone()
    return InlinePass()(copy).model


def _info(value: ir.Value) -> TensorInfo:
    if isinstance(value.type, (ir.SequenceType, ir.OptionalType)) or value.dtype is None:
        dtype: np.dtype[Any] = np.dtype(object)
    else:
        dtype = np.dtype(value.dtype.numpy())
    return TensorInfo(value.name or "", _shape(value.shape), dtype)


def _shape(shape: ir.Shape | None) -> tuple[int | str | None, ...] | None:
    if shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in shape)
