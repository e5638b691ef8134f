"""Chains of one byte each, from DequantizeLinear to QuantizeLinear, as tables of 256 bytes.

Given:  y = Q(HardSwish(DQ(x)) * 2 + 1)
Result: y = table[x]

With constants of one number for each channel the tables must be straight lines: see `slopes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from infer_native.fuse import remove_unused
from infer_native.integer import Scaled, parameters
from infer_native.kernels.elementwise import MAPS
from infer_native.program import Layer, Tensor
from infer_native.slopes import slopes
from infer_runtime.evaluate import run_node

if TYPE_CHECKING:
    from infer_native.program import Array, Program

BYTES = (np.dtype(np.uint8), np.dtype(np.int8))


def fuse_tables(program: Program) -> None:
    """Rewrite every chain in which each operator has one reader and constants that fit."""
    users, producers = program.users(), program.producers()
    kept = {t.root for t in program.outputs}
    replaced: dict[int, Layer] = {}
    for last in program.layers:
        if last.op != "QuantizeLinear" or last.output().dtype not in BYTES:
            continue
        chain: list[Layer] = []
        tensor = last.input(0).root
        while (layer := producers.get(tensor)) is not None and layer.op in MAPS:
            data = [t for t in layer.inputs if t is not None and t.root.data is None]
            if len(users[tensor]) != 1 or tensor in kept or len(data) != 1:
                break
            if any(t is not None and t.root.data is not None and _kind(t, data[0]) is None
                   for t in layer.inputs):  # fmt: skip
                break
            chain.append(layer)
            tensor = data[0].root
        if layer is not None and layer.op == "DequantizeLinear":
            made = _table(layer, chain[::-1], last, program.opset)
            if made is not None:
                replaced[id(last)] = made
    program.layers = [replaced.get(id(layer), layer) for layer in program.layers]
    remove_unused(program)


def same(a: Scaled, b: Scaled) -> bool:
    """Do two tensors mean the same by the same number?"""
    return (a.scale, a.zero, a.tensor.dtype) == (b.scale, b.zero, b.tensor.dtype)


def requantised(
    name: str, tensor: Tensor, source: Scaled, target: Scaled, into: Tensor | None = None
) -> Layer:
    """`tensor`, in terms of `source`, in those of `target`."""
    values = quantised(_dequantised(source), target)
    return _lookup(name, tensor, into or target.tensor, values, source, target)


def _lookup(
    name: str, x: Tensor, y: Tensor, table: Array, source: Scaled, target: Scaled
) -> Layer:  # fmt: skip
    """The layer y = table[x]; `x` is seen under the shape of `y`."""
    if x.shape != y.shape:
        x = Tensor(f"{x.name}_seen", y.shape, x.dtype, view_of=x)
    attrs: dict[str, Any] = {"table": table.view(np.uint8)}
    if x.dtype == y.dtype == np.uint8:
        attrs["slopes"] = slopes(table[None], source.zero, target.zero)
    return Layer("_QTable", name, [x], [y], attrs)


def _kind(constant: Tensor, image: Tensor) -> tuple[int, ...] | None:
    """The shape of a constant against [channels, 256] numbers: one number, or one for each."""
    if constant.size == 1:
        return ()
    channels = image.shape[1] if len(image.shape) == 4 else 0
    return (channels, 1) if constant.shape in ((channels, 1, 1), (1, channels, 1, 1)) else None


def _table(first: Layer, chain: list[Layer], last: Layer, opset: int) -> Layer | None:
    source, target = parameters(first, first.input(0)), parameters(last, last.output())
    if source is None or target is None or source.tensor.dtype not in BYTES:
        return None
    if not chain and same(source, target):
        return None  # the same numbers again: a view
    values = _dequantised(source)
    constants = [t for layer in chain for t in layer.inputs if t and t.root.data is not None]
    channels = any(t.size != 1 for t in constants)
    if channels:
        shape = target.tensor.shape
        if any(layer.output().shape != shape for layer in (first, *chain)):
            return None  # seen under another shape in between
        values = np.broadcast_to(values, (shape[1], 256))
    for layer in chain:
        before = values.shape
        values = _applied(layer, values, opset)
        if values.shape != before or values.dtype != np.float32:
            return None
    table = quantised(values, target)
    if not channels:
        return _lookup(last.name, source.tensor, target.tensor, table, source, target)
    if source.tensor.dtype != np.uint8 or target.tensor.dtype != np.uint8:
        return None
    lines = slopes(table, source.zero, target.zero)
    if lines is None:
        return None
    return Layer("_QSlopes", last.name, [source.tensor], [target.tensor], {"slopes": lines})


def _applied(layer: Layer, values: Array, opset: int) -> Array:
    """An operator on all numbers that a byte can mean."""
    inputs = [
        None if t is None
        else values if t.root.data is None
        else t.root.data.reshape(() if t.size == 1 else (-1, 1))
        for t in layer.inputs
    ]  # fmt: skip
    names = [None if t is None else ir.Value(name=f"x{i}") for i, t in enumerate(layer.inputs)]
    node = ir.node(layer.op, names, layer.attrs, name=layer.name)
    return np.asarray(run_node(node, inputs, opset)[0])


def _dequantised(source: Scaled) -> Array:
    """By the bits of the byte, int8 after 127 being negative."""
    numbers: Array = np.arange(256, dtype=np.uint8).view(source.tensor.dtype).astype(np.float32)
    return (numbers - np.float32(source.zero)) * source.scale


def quantised(values: Array, target: Scaled) -> Array:
    """QuantizeLinear of an array."""
    info = np.iinfo(target.tensor.dtype)
    with np.errstate(over="ignore"):
        steps = np.rint(values / target.scale) + np.float32(target.zero)
    numbers = np.where(np.isnan(steps), info.min, np.clip(steps, info.min, info.max))
    return np.asarray(numbers.astype(target.tensor.dtype))
