"""Few rows times weights that are held in 1 or 2 bits: they become numbers in registers.

A lane has the bits of one output, 32 inputs to a word, the first in the highest bit: so the sign of
a 1 is that of the word, which moves on by one bit for each input. Where weights may be 0 a second
word says which are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.kernels import Code
from infer_native.kernels.gemm import pad_columns

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.levels import Levels
    from infer_native.program import Array, Layer

MOST = 8  # rows: for more of them it pays to spread weights once
WIDEST = 8
WORD = 32


def few_rows(layer: Layer, isa: Isa, levels: Levels, bias: Array | None) -> Code:
    """Plain rows into plain rows; `levels` int8 [outputs, 1, inputs]."""
    lanes, outputs = isa.lanes, len(levels.signs)
    inputs, columns = levels.signs.shape[-1], -(-outputs // lanes)
    rows = layer.input(0).size // inputs
    width = _width(rows, columns, isa, levels)
    planes = 2 if levels.ternary else 1
    each = -(-inputs // WORD) * planes * lanes
    helpers: dict[str, str] = {}
    tables, calls = [], []
    for first in range(0, columns, width):
        count = min(width, columns - first)
        part = max(0, (first + count) * lanes - outputs)
        name, text = _function(rows, count, levels.ternary, lanes - part if part else 0)
        helpers[name] = text
        tables.append(_words(levels, first * lanes, count * lanes, lanes))
        calls.append(
            f"{name}(x0, t0 + {first * each}, t1 + {first * lanes}, t2 + {first * lanes}, "
            f"y0 + {first * lanes}, {inputs}, {outputs});"
        )
    given = [pad_columns(v, columns, lanes) for v in (levels.scale, bias)]
    return Code("\n".join(calls), [np.concatenate(tables), *given], 0, helpers)


def _width(rows: int, columns: int, isa: Isa, levels: Levels) -> int:
    """Columns of which sums, words and two constants fit into registers."""
    each = rows + (3 if levels.ternary else 2)
    return max(1, min(WIDEST, columns, (isa.registers - 3) // each))


def _words(levels: Levels, first: int, count: int, lanes: int) -> Array:
    """[words, columns, planes, lanes]; lanes beyond the last output are 0."""
    signs = levels.signs[first : first + count, 0]
    padded = np.zeros((count, -(-signs.shape[1] // WORD) * WORD), np.int8)
    padded[: len(signs), : signs.shape[1]] = signs
    planes = [padded < 0, padded != 0] if levels.ternary else [padded < 0]
    words = np.stack([np.packbits(p, axis=1).view(">u4").astype("<u4") for p in planes])
    parts = words.reshape(len(planes), -1, lanes, words.shape[-1])
    return np.ascontiguousarray(parts.transpose(3, 1, 0, 2)).reshape(-1)


def _function(rows: int, width: int, ternary: bool, part: int) -> tuple[str, str]:
    name = f"few_{rows}x{width}{'t' if ternary else ''}{part or ''}"
    planes = "wz" if ternary else "w"
    sums = [f"c{r}_{j}" for r in range(rows) for j in range(width)]
    loads = " ".join(
        f"vn {p}{j} = *(const vn *)(const void *)(b + {j * len(planes) + k} * VL);"
        for j in range(width)
        for k, p in enumerate(planes)
    )
    steps = []
    for j in range(width):
        steps.append(f"vn f{j} = (w{j} & 0x80000000u) ^ 0x3f800000u; w{j} += w{j};")
        if ternary:
            steps.append(f"f{j} &= (vn)((vi)z{j} >> 31); z{j} += z{j};")
    for r in range(rows):
        products = " ".join(f"c{r}_{j} += (vf)f{j} * v;" for j in range(width))
        steps.append(f"{{ const float v = a[{r} * depth + k]; {products} }}")
    ends = [_end(r, j, part if j == width - 1 else 0) for r in range(rows) for j in range(width)]
    return name, (
        f"static void {name}(const float *a, const uint32_t *b, const float *scale, "
        "const float *bias, float *o, long depth, long outputs) {\n"
        f"  vf {', '.join(f'{c} = {{0}}' for c in sums)};\n"
        f"  for (long k = 0; k < depth;) {{\n    {loads}\n    b += {width * len(planes)} * VL;\n"
        f"    for (const long end = k + {WORD} < depth ? k + {WORD} : depth; k < end; k++) {{\n"
        + "\n".join(f"      {step}" for step in steps)
        + "\n    }\n  }\n" + "\n".join(f"  {end}" for end in ends) + "\n}\n"
    )  # fmt: skip


def _end(r: int, j: int, part: int) -> str:
    value = f"const vf v = c{r}_{j} * LD(scale + {j} * VL) + LD(bias + {j} * VL);"
    at = f"o + {r} * outputs + {j} * VL"
    store = f"memcpy({at}, &v, {4 * part});" if part else f"ST({at}, v);"
    return f"{{ {value} {store} }}"
