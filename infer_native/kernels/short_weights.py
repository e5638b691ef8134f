"""Weights of 8 or 4 bits that become float32 where they are used, panel by panel.

A panel in the blob is its integers in the order of its floats, two to a byte where they have 4
bits: of two inputs, the first in the low half. It is widened, times the scale of its output and
block of inputs, into memory that the next panel has too; the product that follows is the usual one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_native.kernels.gemm import pack
from infer_native.kernels.spread import Kept

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Panel
    from infer_native.program import Array, Layer, Stored

LEAST = 32  # products of an output: below it scales outweigh what short numbers save


@dataclass(frozen=True)
class Shorts:
    """`codes` int8 [inputs, outputs], `scale` float32 [blocks of inputs, outputs]."""

    codes: Array
    scale: Array
    bits: int


def shorts_of(stored: Stored | None, matrix: Array, *, turned: bool) -> Shorts | None:
    """How the constant weights of a product [inputs, outputs] are held; None where as floats.

    Only where integer times scale is the weight to the bit. With `turned` they lie the other way.
    """
    if stored is None or len(matrix) < LEAST:
        return None
    found = _read(stored, turned=turned)
    if found is None or found[0].shape != matrix.shape or len(matrix) % len(found[1]):
        return None
    codes, scale = found
    whole = np.repeat(scale, len(matrix) // len(scale), axis=0)
    if not np.array_equal(codes.astype(np.float32) * whole, matrix):
        return None
    halves = codes.min() >= -8 and codes.max() <= 7 and len(matrix) // len(scale) % 2 == 0
    return Shorts(codes, scale, 4 if halves else 8)


def keeps_short(layer: Layer) -> bool:
    """The same question of a MatMul or a Gemm with constant weights, before they are packed."""
    weights, turned = layer.input(1), bool(layer.attrs.get("transB", 0))
    if weights.root.data is None or len(weights.shape) != 2 or layer.attrs.get("alpha", 1.0) != 1:
        return False
    matrix = weights.root.data.reshape(weights.shape)
    return shorts_of(weights.stored, matrix.T if turned else matrix, turned=turned) is not None


def _read(stored: Stored, *, turned: bool) -> tuple[Array, Array] | None:
    """Integers around their zero point and scales, of what a DequantizeLinear reads."""
    arrays = [None if t is None else t.root.data for t in stored.inputs]
    codes, scale, zero = (*arrays, None)[:3]
    if codes is None or scale is None or codes.dtype.itemsize != 1 or codes.ndim != 2:
        return None
    axis, wide = stored.axis % 2, codes.astype(np.int16)
    if zero is not None and zero.any():
        return None
    if turned:
        wide, axis = wide.T, 1 - axis
    if scale.size == 1:
        scale = np.broadcast_to(scale.reshape(1, 1), (1, wide.shape[1]))
    elif scale.ndim == 1 and axis == 1:
        scale = scale.reshape(1, -1)
    elif scale.ndim == 2 and axis == 0:
        scale = scale.T if turned else scale
    else:
        return None
    fits = wide.size and wide.min() >= -128 and wide.max() <= 127
    return (wide.astype(np.int8), scale.astype(np.float32)) if fits else None


class Short(Kept):
    """Of weights with 8 or 4 bits."""

    def __init__(self, shorts: Shorts, panels: Sequence[Panel], isa: Isa) -> None:
        self._bits, self._blocks = shorts.bits, len(shorts.scale)
        parts = [self._packed(shorts.codes, p, isa.lanes) for p in panels]
        super().__init__(parts, panels, len(shorts.codes), isa)
        columns = sum(p.tile.columns for p in panels) * isa.lanes
        self.scale = np.pad(shorts.scale, ((0, 0), (0, columns - shorts.scale.shape[1])))

    def _packed(self, codes: Array, panel: Panel, lanes: int) -> Array:
        first = panel.first * lanes
        chosen = codes.T[first : first + panel.tile.columns * lanes].astype(np.float32)
        flat = pack(chosen[:, None], [type(panel)(0, panel.tile)], lanes).astype(np.int8)
        if self._bits == 8:
            return flat
        pairs = flat.reshape(len(codes) // 2, 2, -1)
        return ((pairs[:, 0] & 15) | (pairs[:, 1] << 4)).astype(np.int8).reshape(-1)

    def call(self, panel: Panel, scale: str, helpers: dict[str, str]) -> str:
        """C that fills the floats at w with a panel of the table t0."""
        columns = panel.tile.columns
        name = f"nx_widen{self._bits}x{columns}"
        helpers.setdefault(name, _function(name, columns, self._bits))
        return (
            f"{name}(t0 + {self._at[panel]}, {scale} + {panel.first * self._isa.lanes}, w, "
            f"{self._blocks}, {self.depth // self._blocks}, {self.scale.shape[1]});"
        )


def _function(name: str, columns: int, bits: int) -> str:
    scales = " ".join(f"const vf s{j} = LD(scale + {j} * VL);" for j in range(columns))
    steps, lines = 8 // bits, []
    for j in range(columns):
        lines.append(f"const i32 v{j} = __builtin_convertvector(*(const i8 *)(q + {j} * VL), i32);")
        codes = [f"v{j}"] if bits == 8 else [f"((v{j} << 28) >> 28)", f"(v{j} >> 4)"]
        lines += [
            f"ST(o + {step * columns + j} * VL, __builtin_convertvector({code}, vf) * s{j});"
            for step, code in enumerate(codes)
        ]
    inner = "\n      ".join(lines)
    return (
        f"static void {name}(const int8_t *q, const float *scale, float *o, long blocks, "
        "long each, long next) {\n"
        "  typedef int8_t i8 __attribute__((vector_size(VL), aligned(1), may_alias));\n"
        "  typedef int32_t i32 __attribute__((vector_size(4 * VL)));\n"
        f"  for (long n = 0; n < blocks; n++) {{\n    {scales}\n"
        f"    for (long i = 0; i < each; i += {steps}) {{\n      {inner}\n"
        f"      q += {columns} * VL; o += {steps * columns} * VL;\n    }}\n"
        "    scale += next;\n  }\n}\n"
    )
