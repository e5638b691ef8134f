"""Fourier transforms and complex numbers, which are pairs along a last axis in ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    from infer_tool.importers.tflite.call import Call


@op("RFFT2D")
def rfft2d(c: Call) -> None:
    """The transform of real images, half of its last axis; input 1 is its height and width."""
    height, width = c.known(1)
    x = c.real(0)
    rank = c.rank(x)
    if min(height, width) < 1 or rank < 2:
        raise c.unsupported(f"transforms of {height} x {width} of {rank} axes")
    pairs = c.emit("Unsqueeze", x, c.build.ints(-1))
    rows = c.emit("DFT", pairs, c.build.constant(width), c.build.constant(rank - 1), onesided=1)
    if height > 1 or c.sizes(x)[-2] != 1:
        rows = c.emit("DFT", rows, c.build.constant(height), c.build.constant(rank - 2))
    c.bind(rows)


@op("REAL", "IMAG")
def part(c: Call) -> None:
    """One of the two numbers."""
    which = c.build.constant(int(c.operator.name == "IMAG"))
    c.bind(c.emit("Gather", c.stored(0), which, axis=-1))


@op("COMPLEX_ABS")
def complex_abs(c: Call) -> None:
    """The root of the sum of their squares."""
    c.bind(c.emit("ReduceL2", c.stored(0), c.build.ints(-1), keepdims=0))
