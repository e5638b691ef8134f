"""Quantisation beyond 8 bits, and weights in blocks of less."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from infer_tool.importers.contrib.builder import Builder, Unexpressible

if TYPE_CHECKING:
    Outputs = list[ir.Value | None]

NARROW = (ir.DataType.INT16, ir.DataType.UINT16, ir.DataType.INT4, ir.DataType.UINT4)
BYTE, NIBBLE = 8, 4


def needs_newer(node: ir.Node) -> bool:
    """Has the standard what this node becomes only from opset 21 on?"""
    if node.op_type == "MatMulNBits":
        return True
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return False
    values = (node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None)
    types = [v.dtype for v in values if v is not None]
    return any(t in NARROW for t in types) or "block_size" in node.attributes


def linear(b: Builder, node: ir.Node) -> Outputs:
    """QuantizeLinear and DequantizeLinear of the standard, before it had these types."""
    names = ("axis", "block_size")
    attributes = {n: a.value for n, a in node.attributes.items() if n in names}
    scale = b.required(1)
    if b.rank(scale) == 0 or (b.rank(scale) == 1 and scale.shape == ir.Shape([1])):
        attributes.pop("axis", None)
        empty = b.const(np.zeros(0, np.int64))
        values = [
            v if v is None or b.rank(v) == 0 else b.op("Reshape", v, empty)
            for v in (scale, b.argument(2))
        ]
    else:
        values = [scale, b.argument(2)]
    return [b.op(node.op_type, b.required(0), *values, **attributes)]


def matmul_nbits(b: Builder, _: ir.Node) -> Outputs:
    """X W^T, where the rows of W are in blocks of 4 or 8 bits with a scale each."""
    b.forbid(4)
    rows, columns, bits, size = (int(b.attribute(n, 0)) for n in ("N", "K", "bits", "block_size"))
    if bits not in (NIBBLE, BYTE) or size <= 0:
        raise Unexpressible
    blocks = -(-columns // size)
    levels = _unpacked(b.constant(b.required(1)), bits, (rows, blocks * size))
    scales = b.constant(b.required(2)).reshape(rows, blocks)
    zeros = _zero_points(b, bits, rows, blocks)
    weight = b.op(
        "DequantizeLinear", _signed(b, levels, bits), b.const(scales),
        None if zeros is None else _signed(b, zeros, bits), axis=1, block_size=size,
    )  # fmt: skip
    if blocks * size != columns:
        weight = b.op("Slice", weight, b.ints(0), b.ints(columns), b.ints(1))
    y = b.op("MatMul", b.required(0), b.op("Transpose", weight, perm=[1, 0]))
    bias = b.argument(5)
    return [y if bias is None else b.op("Add", y, bias)]


def _unpacked(packed: Any, bits: int, shape: tuple[int, int]) -> Any:
    """Levels from 0 on; of two in a byte the lower bits come first."""
    if packed.dtype != np.uint8:
        raise Unexpressible
    flat = packed.reshape(shape[0], -1)
    if bits == NIBBLE:
        flat = np.stack([flat & 15, flat >> NIBBLE], -1).reshape(shape[0], -1)
    if flat.shape[1] < shape[1]:
        raise Unexpressible
    return flat[:, : shape[1]]


def _zero_points(b: Builder, bits: int, rows: int, blocks: int) -> Any:
    """None where it is the middle, which signed levels do not need."""
    given = b.argument(3)
    return None if given is None else _unpacked(b.constant(given), bits, (rows, blocks))


def _signed(b: Builder, levels: Any, bits: int) -> ir.Value:
    shifted = levels.astype(np.int16) - (1 << (bits - 1))
    return b.const(shifted.astype(np.int8 if bits == BYTE else ml_dtypes.int4))


RULES = {
    "QuantizeLinear": linear,
    "DequantizeLinear": linear,
    "MatMulNBits": matmul_nbits,
}
