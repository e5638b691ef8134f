"""Elementwise chains and means of NCHWc tensors: one vector of channels at a time."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from infer_native.cwriter import literal, loop
from infer_native.kernels import Code
from infer_native.kernels.elementwise import emit_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.kernels.elementwise import Step
    from infer_native.program import Layer

SUMS = 4  # under way at a time, so that none waits for the last


def chain(layer: Layer) -> Code:
    """A chain whose operands are images, one number for each channel, or one number for all."""
    steps: Sequence[Step] = layer.attrs["steps"]
    if any(not s.vector or s.ctype != "float" for s in steps):
        return emit_map(layer)
    samples, blocks, height, width, _ = layer.output().shape
    pixels = height * width
    before, inside = [], []
    for number, tensor in enumerate(layer.inputs):
        assert tensor is not None
        if tensor.size == 1:
            before.append(f"const vf v{number} = VSET(x{number}[0]);")
        elif tensor.shape == layer.output().shape:
            inside.append(f"const vf v{number} = LD(x{number} + (c * {pixels} + i) * VL);")
        else:
            block = "c" if tensor.shape[0] == samples else f"c % {blocks}"
            before.append(f"const vf v{number} = LD(x{number} + {block} * VL);")
    count = len(layer.inputs)
    for number, step in enumerate(steps):
        text = step.vector.format(*(f"v{a}" for a in step.arguments))
        inside.append(f"const vf v{count + number} = {text};")
    inside.append(f"ST(y0 + (c * {pixels} + i) * VL, v{count + len(steps) - 1});")
    body = "\n".join([*before, loop("i", pixels, "\n".join(inside))])
    return Code(loop("c", samples * blocks, body))


def mean(layer: Layer) -> Code:
    """Of every channel; the sum is one of doubles, half a vector of floats at a time."""
    x = layer.input(0)
    pixels = prod(x.shape[2:4])
    whole = pixels - pixels % SUMS
    names = [(f"a{n}{h}", f"({n} * VL + {h} * VL / 2)") for n in range(SUMS) for h in (0, 1)]
    add = "\n".join(f"{name} += LDD(p + i * VL + {at});" for name, at in names)
    last = "\n".join(f"{name} += LDD(p + i * VL + {at});" for name, at in names[:2])
    ends = "\n".join(
        f"STD(y0 + c * VL + {h} * VL / 2, ({' + '.join(f'a{n}{h}' for n in range(SUMS))}) / "
        f"{literal(pixels, 'double')});"
        for h in (0, 1)
    )
    rest = f"for (long i = {whole}; i < {pixels}; i++) {{\n{last}\n}}\n" if whole < pixels else ""
    body = (
        f"const float *p = x0 + c * {pixels} * VL;\n"
        f"vd {', '.join(f'{name} = {{0}}' for name, _ in names)};\n"
        f"for (long i = 0; i < {whole}; i += {SUMS}) {{\n{add}\n}}\n{rest}{ends}"
    )
    return Code(loop("c", prod(x.shape[:2]), body))


def helpers() -> dict[str, str]:
    """Half a vector of floats as one of doubles, and back."""
    return {
        "LDD": (
            "typedef float vh __attribute__((vector_size(2 * VL), aligned(4), may_alias));\n"
            "typedef double vd __attribute__((vector_size(4 * VL)));\n"
            "#define LDD(p) __builtin_convertvector(*(const vh *)(p), vd)\n"
            "#define STD(p, v) (*(vh *)(p) = __builtin_convertvector(v, vh))"
        ),
    }
