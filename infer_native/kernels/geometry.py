"""Windows of convolution and pooling as loops over the parts of a row that need no test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infer_native.cwriter import indent, loop, names
from infer_runtime.ops.window import Window, window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_native.program import Layer


def window_of(layer: Layer, size: Sequence[int], kernel: Sequence[int]) -> Window:
    """The geometry of a layer by its attributes."""
    attrs = layer.attrs
    return window(
        size,
        kernel,
        strides=attrs.get("strides"),
        dilations=attrs.get("dilations"),
        pads=attrs.get("pads"),
        auto_pad=attrs.get("auto_pad", "NOTSET"),
        ceil_mode=attrs.get("ceil_mode", 0),
    )


def valid(where: Window, axis: int, tap: int, size: int) -> tuple[int, int]:
    """First and end of the outputs along an axis for which a tap meets a real input."""
    offset = tap * where.dilations[axis] - where.begins[axis]
    stride = where.strides[axis]
    first = max(0, -(offset // stride)) if offset < 0 else 0
    end = min(where.out[axis], (size - 1 - offset) // stride + 1)
    return first, max(first, end)


@dataclass(frozen=True)
class Reach:
    """A tap along the last axis, and the outputs of a row for which it meets a real input."""

    tap: int
    first: int
    end: int


def over_taps(
    where: Window,
    size: Sequence[int],
    body: Callable[[Reach], str],
    *,
    every_output: bool = False,
) -> str:
    """For all outer output positions and taps that meet real inputs, `body` for the last axis.

    The body finds `row`, the flat index of the row of outputs, `line`, that of the row of inputs,
    and `tap`, that of the first tap of the row. With `every_output` it tests for itself which
    inputs are real.
    """
    last = len(size) - 1
    o, k, q = names(last, "p"), names(last, "k"), names(last, "q")
    reaches = [Reach(t, *valid(where, last, t, size[last])) for t in range(where.kernel[last])]
    text = "\n".join(body(r) for r in reaches if every_output or r.end > r.first)
    line, tap = _flat(q, size), _flat(k, where.kernel)
    if re.search(r"\btap\b", text):
        text = f"const long tap = ({tap}) * {where.kernel[last]};\n{text}"
    text = f"const long line = {line};\n{text}"
    for axis in reversed(range(last)):
        at = (
            f"const long {q[axis]} = {o[axis]} * {where.strides[axis]} + {k[axis]} * "
            f"{where.dilations[axis]} - {where.begins[axis]};\n"
            f"if ({q[axis]} < 0 || {q[axis]} >= {size[axis]}) continue;\n"
        )
        text = loop(k[axis], where.kernel[axis], at + text)
    text = f"const long row = {_flat(o, where.out)};\n{text}"
    for axis in reversed(range(last)):
        text = loop(o[axis], where.out[axis], text)
    return text if last else f"{{\n{indent(text)}\n}}"


def _flat(index: Sequence[str], shape: Sequence[int]) -> str:
    text = "0"
    for name, size in zip(index, shape, strict=False):
        text = name if text == "0" else f"({text}) * {size} + {name}"
    return text
