"""Conversions between plain and blocked tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.cwriter import loop
from infer_native.kernels import Code

if TYPE_CHECKING:
    from infer_native.program import Tensor


def to_blocked(tensor: Tensor, lanes: int) -> Code:
    """Block by block; the lanes beyond the last channel are zero."""
    if tensor.dtype.itemsize == 1:
        return _bytes_to_blocked(tensor, lanes)
    n, c, h, w = tensor.shape
    blocks, pixels = -(-c // lanes), h * w
    whole, turned = _squares(tensor, lanes)
    fill = f"for (long k = 0; k < {lanes}; k++)\n"
    line = (
        f"const long c = b * {lanes} + k;\n"
        f"const long at = (n * {c} + c) * {pixels} + i;\n"
        f"y0[((n * {blocks} + b) * {pixels} + i) * {lanes} + k] = c < {c} ? x0[at] : 0;"
    )
    square = (
        f"nx_turn(x0 + (n * {c} + b * {lanes}) * {pixels} + i, {pixels}, "
        f"y0 + ((n * {blocks} + b) * {pixels} + i) * {lanes}, {lanes});"
    )
    body = _by_squares(square, turned, lanes, whole)
    rest = loop("i", pixels, f"{fill}{{\n{line}\n}}", f"b < {whole} ? {turned} : 0")
    return Code(loop("n", n, loop("b", blocks, f"{body}{rest}")))


def _bytes_to_blocked(tensor: Tensor, lanes: int) -> Code:
    """The same of elements of one byte.

    Of a loop over bytes that are far apart gcc makes vectors, in code that takes it most of a
    minute: it must not see where they are.
    """
    n, c, h, w = tensor.shape
    blocks, pixels = -(-c // lanes), h * w
    pixel = (
        f"const {tensor.ctype} *x = x0 + (n * {c} + b * {lanes}) * {pixels} + i;\nHIDE(x);\n"
        f"for (long k = 0; k < {lanes}; k++)\n"
        f"  y0[((n * {blocks} + b) * {pixels} + i) * {lanes} + k] = "
        f"b * {lanes} + k < {c} ? x[k * {pixels}] : 0;"
    )
    return Code(loop("n", n, loop("b", blocks, loop("i", pixels, pixel))))


def to_plain(tensor: Tensor, lanes: int) -> Code:
    """Channel by channel."""
    n, c, h, w = tensor.shape
    blocks, pixels = -(-c // lanes), h * w
    whole, turned = _squares(tensor, lanes)
    line = (
        f"y0[(n * {c} + c) * {pixels} + i] = "
        f"x0[((n * {blocks} + c / {lanes}) * {pixels} + i) * {lanes} + c % {lanes}];"
    )
    square = (
        f"nx_turn(x0 + ((n * {blocks} + b) * {pixels} + i) * {lanes}, {lanes}, "
        f"y0 + (n * {c} + b * {lanes}) * {pixels} + i, {pixels});"
    )
    body = loop("b", whole, _by_squares(square, turned, lanes, whole)) + "\n" if turned else ""
    rest = loop("i", pixels, line, f"c < {whole * lanes} ? {turned} : 0")
    return Code(loop("n", n, body + loop("c", c, rest)))


def _squares(tensor: Tensor, lanes: int) -> tuple[int, int]:
    """Blocks of which every lane is a channel, and pixels in whole vectors; of float32 alone."""
    _, c, h, w = tensor.shape
    if tensor.ctype != "float" or c < lanes or h * w < lanes:
        return 0, 0
    return c // lanes, h * w // lanes * lanes


def _by_squares(square: str, turned: int, lanes: int, whole: int) -> str:
    if not turned:
        return ""
    head = f"for (long i = 0; i < (b < {whole} ? {turned} : 0); i += {lanes})"
    return f"{head} {square}\n"
