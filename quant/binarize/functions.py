"""The functions that binary layers are in a file, with standard operators as their meaning.

    BinaryConv, TernaryConv (x, packed, scale, bias)              Conv of x with weights * scale
    BinaryGemm, TernaryGemm (x, packed, scale, bias)              the same for rows: x @ weights.T
    XnorConv                (x, threshold, packed, scale, bias)   sums of -1 and 1, * scale + bias
    XnorGemm                (x, threshold, packed, scale, bias)
    Sign                    (x, threshold)                        1 where x >= threshold, else -1

`packed` is uint8 without gaps, over the weight of the attribute `shape` in row-major order:
binary   element i in bit i % 8 of byte i // 8, 1 for 1 and 0 for -1
ternary  element i in bits 2 * (i % 4) and the next one of byte i // 4, its value + 1
`shape` is [M, C/group, ...] for Conv and [M, K] for Gemm, whose x is [..., K]. `scale` is float16,
[M, 1, ...] with as many ones as it takes to meet the weight (the sums in Xnor functions). `bias` is
float32, [M], in XnorConv [M, 1, ...]; `threshold` float32, [C, 1, ...] or [K]. Conv functions have
the attributes strides, pads, dilations and group of Conv, always all of them. Padding adds nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from quant.domain import DOMAIN, Body, add_function, attribute
from quant.packing import unpacker

if TYPE_CHECKING:
    from collections.abc import Callable

    Product = Callable[[Body, ir.Value, ir.Value, ir.Value | None], ir.Value]

GEOMETRY = ("strides", "pads", "dilations", "group")
BITS = {"Binary": 1, "Ternary": 2, "Xnor": 1}
SIGN = "Sign"
SIGNS = {(DOMAIN, name) for name in (SIGN, "XnorConv", "XnorGemm")}  # make values one bit


def define(model: ir.Model, form: str, kind: str) -> str:
    """Give the model the function `<form><kind>`, e.g. XnorConv; its name."""
    name, bits = f"{form}{kind}", BITS[form]
    attributes = ["shape", *(GEOMETRY if kind == "Conv" else ())]
    inputs = ["x", *(["threshold"] if form == "Xnor" else []), "packed", "scale", "bias"]
    unpack, product = unpacker(model, bits), _conv if kind == "Conv" else _gemm
    if form == "Xnor":
        build = partial(_xnor, unpack=unpack, product=product)
    else:
        build = partial(_real, unpack=unpack, bits=bits, product=product)
    add_function(model, name, inputs, build, attributes)
    return name


def define_sign(model: ir.Model) -> str:
    """Give the model the function Sign; its name."""
    add_function(model, SIGN, ["x", "threshold"], lambda b: _sign(b, *b.inputs))
    return SIGN


def _sign(b: Body, x: ir.Value, threshold: ir.Value) -> ir.Value:
    one, other = b.constant(np.float32(1)), b.constant(np.float32(-1))
    return b("Where", b("GreaterOrEqual", x, threshold), one, other)


def _levels(b: Body, packed: ir.Value, unpack: str, bits: int) -> ir.Value:
    """-1, 0 and 1 in the shape of the weight."""
    stored = b("Cast", b.call(unpack, packed, b.given("shape")), to=int(ir.DataType.FLOAT))
    one = b.constant(np.float32(1))
    return b("Sub", stored if bits > 1 else b("Mul", stored, b.constant(np.float32(2))), one)


def _real(b: Body, *, unpack: str, bits: int, product: Product) -> ir.Value:
    x, packed, scale, bias = b.inputs
    factor = b("Cast", scale, to=int(ir.DataType.FLOAT))
    weight = b("Mul", _levels(b, packed, unpack, bits), factor)
    return product(b, x, weight, bias)


def _xnor(b: Body, *, unpack: str, product: Product) -> ir.Value:
    x, threshold, packed, scale, bias = b.inputs
    sums = product(b, _sign(b, x, threshold), _levels(b, packed, unpack, 1), None)
    scaled = b("Mul", sums, b("Cast", scale, to=int(ir.DataType.FLOAT)))
    return b("Add", scaled, bias)


def _conv(b: Body, x: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    kinds = dict.fromkeys(GEOMETRY, ir.AttributeType.INTS) | {"group": ir.AttributeType.INT}
    given = {name: attribute(name, name, kind) for name, kind in kinds.items()}
    return b("Conv", x, weight, *([] if bias is None else [bias]), **given)


def _gemm(b: Body, x: ir.Value, weight: ir.Value, bias: ir.Value | None) -> ir.Value:
    product = b("MatMul", x, b("Transpose", weight, perm=[1, 0]))
    return product if bias is None else b("Add", product, bias)
