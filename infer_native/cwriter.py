"""Small pieces of C: loops over shapes, addresses, literals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def strides_of(shape: Sequence[int]) -> list[int]:
    """Elements from one index to the next along each axis, row-major."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def broadcast_strides(shape: Sequence[int], to: Sequence[int]) -> list[int]:
    """Strides of a tensor seen under a larger shape; 0 where it is repeated."""
    padded = [1] * (len(to) - len(shape)) + list(shape)
    return [0 if n == 1 else s for n, s in zip(padded, strides_of(padded), strict=True)]


def collapse(
    shape: Sequence[int], strides: Sequence[Sequence[int]]
) -> tuple[list[int], list[list[int]]]:
    """Merge neighbouring axes that every operand walks without a jump; axes of length 1 go."""
    dims: list[int] = []
    walks: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        here = [s[axis] for s in strides]
        if dims and all(w[-1] == h * size for w, h in zip(walks, here, strict=True)):
            dims[-1] *= size
            for walk, step in zip(walks, here, strict=True):
                walk[-1] = step
        else:
            dims.append(size)
            for walk, step in zip(walks, here, strict=True):
                walk.append(step)
    return dims, walks


def address(names: Sequence[str], strides: Sequence[int], base: int = 0) -> str:
    """The sum of index times stride as a C expression."""
    terms = [
        name if step == 1 else f"{name} * {step}"
        for name, step in zip(names, strides, strict=True)
        if step
    ]
    if base or not terms:
        terms.append(str(base))
    return " + ".join(terms).replace("+ -", "- ")


def loop(name: str, count: int | str, body: str, start: int | str = 0) -> str:
    """A counted loop."""
    head = f"for (long {name} = {start}; {name} < {count}; {name}++)"
    return f"{head} {{\n{indent(body)}\n}}"


def nest(names: Iterable[str], counts: Iterable[int | str], body: str) -> str:
    """Loops inside each other, the first outermost; a loop of one turn is its body."""
    for name, count in reversed(list(zip(names, counts, strict=True))):
        body = loop(name, count, body)
    return body


def indent(text: str) -> str:
    """One step to the right."""
    return "\n".join(f"  {line}" if line else line for line in text.split("\n"))


def names(count: int, prefix: str = "i") -> list[str]:
    """i0, i1, ..."""
    return [f"{prefix}{n}" for n in range(count)]


def literal(value: Any, ctype: str) -> str:
    """A number as C writes it, exactly."""
    if ctype in ("float", "double"):
        return _float(float(value), ctype)
    number = int(value)
    if number == -(2**63):
        return "(-9223372036854775807LL - 1)"
    suffix = "ull" if ctype == "uint64_t" else "ll" if abs(number) > 2**31 - 1 else ""
    return f"({number}{suffix})" if number < 0 else f"{number}{suffix}"


def _float(value: float, ctype: str) -> str:
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = repr(float(np.float32(value))) if ctype == "float" else repr(value)
    if "." not in text and "e" not in text:
        text += ".0"
    text += "f" if ctype == "float" else ""
    return f"({text})" if value < 0 else text


def lowest(ctype: str) -> str:
    """The value that no maximum takes."""
    return _LIMITS[ctype][0]


def highest(ctype: str) -> str:
    """The value that no minimum takes."""
    return _LIMITS[ctype][1]


_LIMITS = {
    "float": ("(-INFINITY)", "INFINITY"),
    "double": ("(-INFINITY)", "INFINITY"),
    **{f"int{b}_t": (f"INT{b}_MIN", f"INT{b}_MAX") for b in (8, 16, 32, 64)},
    **{f"uint{b}_t": ("0", f"UINT{b}_MAX") for b in (8, 16, 32, 64)},
}
