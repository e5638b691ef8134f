"""Bytes of every value at given sizes of the inputs."""

from __future__ import annotations

from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING

import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.errors import KernelError, UsageError
from passes.facts import Shape, inferred_values
from passes.feeds import bind_symbols, random_feeds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from infer_runtime import TensorInfo
    from infer_runtime.arrays import Array


def input_sizes(
    inputs: Sequence[TensorInfo], given: Mapping[str, Sequence[int]]
) -> dict[str, Shape]:
    """The full shape of each input: its own, completed by the given ones.

    A symbolic dimension that one input fixes has that size in all of them.

    Raises:
        UsageError: a shape is for no input or does not fit, or a dimension stays open.

    """
    known = {info.name: info for info in inputs}
    symbols: dict[str, int] = {}
    for name, shape in given.items():
        if name not in known:
            raise UsageError(f"--shape {name}: the inputs are {', '.join(known)}")
        bind_symbols(known[name], tuple(shape), symbols)
    return {i.name: tuple(given.get(i.name) or _completed(i, symbols)) for i in inputs}


def _completed(info: TensorInfo, symbols: Mapping[str, int]) -> Shape:
    sizes = [d if isinstance(d, int) else symbols.get(d or "") for d in info.shape or ()]
    if info.shape is None or None in sizes:
        dims = "?" if info.shape is None else "x".join(str(d or "?") for d in info.shape)
        raise UsageError(
            f"input {info.name!r} has no fixed size, it is {dims}; give one with "
            f"--shape {info.name}:1x..."
        )
    return tuple(d for d in sizes if d is not None)


def value_bytes(model: ir.Model, sizes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Bytes of each tensor by name, subgraphs included; those that cannot be known are missing.

    By shape inference, and where the shape depends on data by one run on seeded inputs.
    """
    found = {}
    for value in inferred_values(model, sizes):
        if (size := _static_bytes(value)) is not None:
            found[value.name or ""] = size
    wanted = {o.name for n in model.graph for o in n.outputs if o.name}
    return found if wanted <= found.keys() else _observed(model, sizes) | found


def _static_bytes(value: ir.Value) -> int | None:
    if value.shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    if not isinstance(value.type, ir.TensorType) or not value.shape.is_static():
        return None
    return -(-prod(value.shape.numpy()) * value.dtype.bitwidth // 8)


def _observed(model: ir.Model, sizes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    found: dict[str, int] = {}

    def observe(name: str, array: Array) -> None:
        if hasattr(array, "nbytes") and array.dtype != object:
            found[name] = int(array.nbytes)

    session = Session(model)
    with suppress(KernelError):  # made inputs may be none that the model accepts
        session.run(random_feeds(session.inputs, shapes=sizes), observe=observe)
    return found
