"""Levels of 1 to 7 bits without gaps, and the standard operators that spread them out again.

Widths that divide 8 share bytes: the first level in the lowest bits. Others are cut into bit
planes, each of them eight levels to a byte. Engines fold the unpacking when they load the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from quant.domain import DOMAIN, Body, add_function

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BYTE = 8


def pack(levels: Array, bits: int) -> Array:
    """uint8 levels below 2**bits of any shape -> uint8 [bytes], or [bits, bytes] of bit planes."""
    flat = levels.reshape(-1)
    if BYTE % bits:
        planes = (flat[None] >> np.arange(bits, dtype=np.uint8)[:, None]) & 1
        return np.packbits(planes, axis=1, bitorder="little")
    share = BYTE // bits
    padded = np.zeros(-(-flat.size // share) * share, np.uint8)
    padded[: flat.size] = flat
    return np.asarray(np.bitwise_or.reduce(padded.reshape(-1, share) << _places(bits), axis=1))


def unpack(packed: Array, bits: int, shape: tuple[int, ...]) -> Array:
    """The inverse of `pack`."""
    size = int(np.prod(shape))
    if BYTE % bits:
        planes = np.unpackbits(packed, axis=1, bitorder="little")[:, :size]
        weighted = planes << np.arange(bits, dtype=np.uint8)[:, None]
        return np.asarray(np.bitwise_or.reduce(weighted, axis=0).reshape(shape))
    levels = (packed[:, None] >> _places(bits)) & np.uint8(2**bits - 1)
    return levels.reshape(-1)[:size].reshape(shape)


def _places(bits: int) -> Array:
    return np.arange(0, BYTE, bits, dtype=np.uint8)


def unpack_node(model: ir.Model, packed: ir.Value, shape: ir.Value, bits: int) -> ir.Node:
    """A call of the model-local function `Unpack<bits>`: (packed, shape) -> uint8 levels."""
    return ir.node(unpacker(model, bits), [packed, shape], domain=DOMAIN)


def unpacker(model: ir.Model, bits: int) -> str:
    """The name of that function, which the model then has."""
    name = f"Unpack{bits}"
    add_function(model, name, ["packed", "shape"], lambda b: _body(b, bits))
    return name


def unpacked_bits(b: Body, bits: int) -> ir.Value:
    """The first nodes of a function: (packed, shape) -> flat uint8 levels; see `quant.domain`."""
    wide = b("Unsqueeze", b.inputs[0], b.constant(np.array([-1])))
    if BYTE % bits:
        ones = b("BitShift", wide, b.constant(_places(1)), direction="RIGHT")
        ones = b("BitwiseAnd", ones, b.constant(np.uint8(1)))
        places = np.arange(bits, dtype=np.uint8).reshape(-1, 1, 1)
        weighted = b("BitShift", ones, b.constant(places), direction="LEFT")
        # No engine sums uint8; the planes have no bit in common, so any sum is their union.
        counted = b("Cast", weighted, to=int(ir.DataType.INT32))
        union = b("ReduceSum", counted, b.constant(np.array([0])), keepdims=0)
        levels = b("Cast", union, to=int(ir.DataType.UINT8))
    else:
        shifted = b("BitShift", wide, b.constant(_places(bits)), direction="RIGHT")
        levels = b("BitwiseAnd", shifted, b.constant(np.uint8(2**bits - 1)))
    flat = b("Reshape", levels, b.constant(np.array([-1])))
    count = b("ReduceProd", b.inputs[1])
    return b(
        "Slice", flat, b.constant(np.array([0])), b("Reshape", count, b.constant(np.array([1])))
    )


def _body(b: Body, bits: int) -> ir.Value:
    return b("Reshape", unpacked_bits(b, bits), b.inputs[1])
