"""Operators that change how numbers are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    from infer_tool.importers.tflite.call import Call


@op("DEQUANTIZE")
def dequantize(c: Call) -> None:
    """Real numbers of integers or of half-precision weights."""
    array = c.array(0)
    if c.is_quantised():
        c.put(c.real(0))
    elif array is not None:
        c.bind(c.build.constant(array.astype(np.float32), name=c.result().name))
    else:
        c.bind(c.cast(c.stored(0), c.result().type))


@op("QUANTIZE")
def quantize(c: Call) -> None:
    """Integers of real numbers, or of other integers with another scale."""
    c.put(c.real(0))


@op("DENSIFY")
def densify(c: Call) -> None:
    """Sparse weights became dense when they were read."""
    c.bind(c.stored(0))


@op("FAKE_QUANT")
def fake_quant(c: Call) -> None:
    """Round to the integers of a range and back."""
    bits, x = c.options.integer("bits") or 8, c.real(0)
    low, high = c.options.real("lowest"), c.options.real("highest")
    first, last = int(c.options.flag("narrow")), 2**bits - 1
    if bits > 8 or not low < high:
        raise c.unsupported(f"{bits} bits from {low} to {high}")
    scale = np.float32((high - low) / (last - first))
    zero = int(np.clip(np.round(first - low / scale), first, last))
    bounds = [c.number(float((v - zero) * scale), x) for v in (first, last)]
    clipped = c.emit("Clip", x, *bounds)
    pair = c.build.constant(scale), c.build.constant(zero, np.uint8)
    c.put(c.emit("DequantizeLinear", c.emit("QuantizeLinear", clipped, *pair), *pair))
