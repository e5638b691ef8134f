"""Integer layers on vectors of 32-bit sums, for processors without VNNI: AVX2, SSE and NEON.

Bytes become what the instruction multiplies: 16-bit numbers for PMADDWD, which adds two products
and cannot overflow, and for SMLAL; int8 for SDOT, which adds four, after 128 was taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import literal, loop, nest
from infer_native.kernels import Code
from infer_native.kernels.gemm import choose, measured, panels_of
from infer_native.kernels.integer import lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.integer import Linear, Shift, Sum
    from infer_native.isa import Isa
    from infer_native.kernels.gemm import Panel
    from infer_native.program import Array, Layer
    from infer_native.slopes import Slopes
    from infer_runtime.ops.window import Window


@dataclass(frozen=True)
class Unit:
    """How an instruction set multiplies: products that it adds at once, type, what is taken off."""

    group: int
    dtype: str
    offset: int

    @property
    def ctype(self) -> str:
        """In C."""
        return f"{self.dtype}_t"


PRODUCT = 1  # register: where it lies before it is added
UNITS = {
    "avx2": Unit(2, "int16", 0),
    "sse": Unit(2, "int16", 0),
    "neon": Unit(1, "int16", 0),
    "dotprod": Unit(4, "int8", 128),
}


def conv(layer: Layer, isa: Isa, where: Window, group: int) -> Code:
    """Dense or depthwise, blocked; with the attribute `sum` the second input is added."""
    if group > 1:
        return _depthwise(layer, isa, where)
    unit, linear, lanes = UNITS[isa.name], _linear(layer), isa.lanes
    x, y = layer.input(0), layer.output()
    samples, blocks, height, width, _ = x.shape
    _, columns, rows, out, _ = y.shape
    _, inputs, kh, kw = linear.weights.shape
    padded = any(where.begins) or any(where.ends)
    whole = kh == kw == 1 and where.strides == (1, 1) and not padded
    run = rows * out if whole else out
    panels = panels_of(choose(run, columns, isa.registers - PRODUCT, False, measured(layer)))
    steps = -(-inputs // unit.group)
    line, lines = width + sum(_ends(where, 1)), height + sum(_ends(where, 0))
    calls, at, helpers = [], 0, {}
    for panel in panels:
        tile, first = panel.tile, panel.first * lanes
        place = f"n * {y.size // samples} + {panel.first * rows * out * lanes} + r * {out * lanes}"
        store = _ending(layer, f"o + {{m}} * {lanes} + {{j}} * {rows * out * lanes}")
        name, text = _product(
            panel, run, where.strides[1] * lanes, lanes, lanes, unit, store,
            residual="sum" in layer.attrs, row="slopes" in layer.attrs,
        )  # fmt: skip
        helpers[name] = text
        other = f", x1 + {place}" if "sum" in layer.attrs else ""
        other += f", t3 + {2 * first}" if "slopes" in layer.attrs else ""
        calls.append(
            f"{name}(in + r * {where.strides[0] * line * lanes}, t0 + {at}, t1 + {first}, "
            f"t2 + {first}, y0 + {place}{other}, {steps}, {lines * line * lanes}, {kh}, {kw}, "
            f"{where.dilations[0] * line * lanes}, {where.dilations[1] * lanes});"
        )
        at += tile.columns * lanes * unit.group * steps * kh * kw
    tables = [_packed(linear.weights, panels, unit, lanes), *_vectors(linear, columns, unit, lanes)]
    tables += _lines(layer, columns, lanes)
    body = _expanded(layer, where, unit) + "\n".join(
        loop("r", 1 if whole else rows, c) for c in calls
    )
    scratch = np.dtype(unit.dtype).itemsize * (blocks * lines * line + 1) * lanes
    return Code(loop("n", samples, body), tables, scratch, helpers)


def matmul(layer: Layer, isa: Isa) -> Code:
    """Rows as they lie times a constant matrix; rounded to bytes, or real for a Gemm."""
    unit, linear, lanes = UNITS[isa.name], _linear(layer), isa.lanes
    outputs, inputs = linear.weights.shape
    rows, columns = layer.input(0).size // inputs, -(-outputs // lanes)
    panels = panels_of(choose(rows, columns, isa.registers - PRODUCT, False, measured(layer)))
    steps = -(-inputs // unit.group)
    wide = steps * unit.group
    weights = linear.weights.reshape(outputs, inputs, 1, 1)
    tables = [_packed(weights, panels, unit, lanes), *_vectors(linear, columns, unit, lanes)]
    shift: Shift | None = layer.attrs.get("shift")
    if shift is not None:
        tables.append(np.pad(shift.shift, (0, columns * lanes - outputs)))
    calls, at, helpers = [], 0, {}
    for panel in panels:
        first = panel.first * lanes
        store = _ending(layer, f"o + {{m}} * {outputs} + {{j}} * {lanes}", panel, outputs, lanes)
        name, text = _product(
            panel, rows, wide, outputs, lanes, unit, store, row=shift is not None,
            out=layer.output().ctype,
        )  # fmt: skip
        helpers[name] = text
        other = f", t3 + {first}" if shift is not None else ""
        calls.append(
            f"{name}(in, t0 + {at}, t1 + {first}, t2 + {first}, y0 + {first}{other}, {steps}, "
            f"{lanes}, 1, 1, 0, 0);"
        )
        at += panel.tile.columns * lanes * wide
    number = f"({unit.ctype})(x0[i * {inputs} + k] - {unit.offset})"
    copy = f"memset(in + i * {wide}, 0, sizeof(*in) * {wide});\n" if wide > inputs else ""
    copy += loop("k", inputs, f"in[i * {wide} + k] = {number};")
    body = f"{unit.ctype} *in = ({unit.ctype} *)s;\n{loop('i', rows, copy)}\n"
    scratch = np.dtype(unit.dtype).itemsize * (rows * wide + lanes)
    return Code(body + "\n".join(calls), tables, scratch, helpers)


def _linear(layer: Layer) -> Linear:
    linear: Linear = layer.attrs["linear"]
    return linear


def _ends(where: Window, axis: int) -> tuple[int, int]:
    return where.begins[axis], where.ends[axis]


def _vectors(linear: Linear, columns: int, unit: Unit, lanes: int) -> tuple[Array, Array]:
    """Bias and scale up to whole vectors; the bias gives back what was taken off."""
    bias, scale = np.zeros(columns * lanes, np.int32), np.zeros(columns * lanes, np.float32)
    sums = linear.weights.reshape(linear.bias.size, -1).astype(np.int64).sum(axis=1)
    bias[: linear.bias.size] = linear.bias + unit.offset * sums
    scale[: linear.scale.size] = linear.scale
    return bias, scale


def _packed(weights: Array, panels: Sequence[Panel], unit: Unit, lanes: int) -> Array:
    """[outputs, inputs, kh, kw] panel by panel as [taps, inputs / group, outputs, group]."""
    outputs, inputs, kh, kw = weights.shape
    steps = -(-inputs // unit.group)
    total = sum(p.tile.columns for p in panels) * lanes
    padded = np.zeros((total, kh * kw, steps * unit.group), unit.dtype)
    padded[:outputs, :, :inputs] = weights.transpose(0, 2, 3, 1).reshape(outputs, kh * kw, inputs)
    split = padded.reshape(total, kh * kw, steps, unit.group).transpose(1, 2, 0, 3)
    edges = [(p.first * lanes, (p.first + p.tile.columns) * lanes) for p in panels]
    return np.concatenate([split[:, :, a:b].reshape(-1) for a, b in edges])


def _expanded(layer: Layer, where: Window, unit: Unit) -> str:
    """A sample with its border of zero points, as numbers of the unit, in the scratch memory."""
    _, blocks, height, width, lanes = layer.input(0).shape
    (top, bottom), (left, right) = _ends(where, 0), _ends(where, 1)
    lines, line = height + top + bottom, width + left + right
    zero = _linear(layer).zero_in - unit.offset
    row = (
        f"{unit.ctype} *d = in + (c * {lines} + r) * {line * lanes};\n"
        f"const uint8_t *p = x0 + ((n * {blocks} + c) * {height} + r - {top}) * {width * lanes};\n"
        f"const int real = r >= {top} && r < {top + height};\n"
        f"for (long i = 0; i < {line * lanes}; i++) d[i] = {zero};\n"
        f"if (real) for (long i = 0; i < {width * lanes}; i++) "
        f"d[{left * lanes} + i] = ({unit.ctype})(p[i] - {unit.offset});"
    )
    copy = loop("c", blocks, loop("r", lines, row))
    return f"{unit.ctype} *in = ({unit.ctype} *)s;\n{copy}\n"


def _product(
    panel: Panel, rows: int, step: int, os: int, lanes: int, unit: Unit, store: str,
    *, residual: bool = False, row: bool = False, out: str = "uint8_t",
) -> tuple[str, str]:  # fmt: skip
    """A function for the rows of a panel, its sums in registers; its name depends on its text."""
    tile, more, moves = panel.tile, "", ""
    if residual:
        more, moves = ", const uint8_t *q", f" q += {tile.rows * os};"
    if row:
        more += ", const float *row"
    full, rest = divmod(rows, tile.rows)
    body = _tile(tile.rows, tile.columns, step, lanes, unit, store)
    text = (
        f"(const {unit.ctype} *a, const {unit.ctype} *weights, const int32_t *bias, "
        f"const float *scale, {out} *o{more}, long steps, long aps, long kh, long kw, long rs, "
        f"long ks) {{\nfor (long i = 0; i < {full}; i++) {{\n{body}\n"
        f"a += {tile.rows * step}; o += {tile.rows * os};{moves}\n}}\n"
    )
    if rest:
        text += f"{{\n{_tile(rest, tile.columns, step, lanes, unit, store)}\n}}\n"
    import hashlib

    name = f"qw_{tile.rows}x{tile.columns}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name, f"static void {name}{text}}}\n"


def _tile(rows: int, columns: int, step: int, lanes: int, unit: Unit, store: str) -> str:
    each = lanes // unit.group
    inner = _step(rows, columns, step, lanes, unit)
    lines = [f"vi c{m}_{j} = LDI(bias + {j * lanes});" for j in range(columns) for m in range(rows)]
    lines += [
        f"const {unit.ctype} *b = weights;",
        f"long each = {each};",
        "HIDE(steps); HIDE(each);",  # else gcc unrolls loops of few steps whole, and spills
        "for (long y = 0; y < kh; y++) for (long x = 0; x < kw; x++) {",
        f"const {unit.ctype} *p = a + y * rs + x * ks;",
        f"for (long n = steps / {each}; n; n--) {{ const {unit.ctype} *next = p + aps;",
        "#pragma GCC unroll 1",  # gcc would add products of several steps first, and spill
        f"for (long u = each; u; u--) {{ {inner} }} p = next; }}",
        f"for (long n = steps % {each}; n; n--) {{ {inner} }}",
        "}",
    ]
    for j in range(columns):
        lines.append(f"{{ const vf S = LD(scale + {j * lanes});")
        lines += [store.replace("{m}", str(m)).replace("{j}", str(j)) for m in range(rows)]
        lines.append("}")
    return "\n".join(lines)


def _step(rows: int, columns: int, step: int, lanes: int, unit: Unit) -> str:
    wide = lanes * unit.group
    loads = " ".join(f"const WV w{j} = WLD(b + {j * wide});" for j in range(columns))
    sums = " ".join(
        f"{{ const WV v = WSET(p + {m * step}); "
        + " ".join(f"c{m}_{j} = WDOT(c{m}_{j}, v, w{j});" for j in range(columns))
        + " }"
        for m in range(rows)
    )
    return f"{loads} {sums} p += {unit.group}; HIDE(p); b += {columns * wide};"


def _ending(
    layer: Layer, at: str, panel: Panel | None = None, outputs: int = 0, lanes: int = 0
) -> str:
    """The rounding of the sum c{m}_{j} with the scale S, stored at `at`."""
    linear = _linear(layer)
    value = f"q_vbyte(c{{m}}_{{j}}, S, {linear.zero_out}.0f)"
    sum_: Sum | None = layer.attrs.get("sum")
    if layer.op == "_QGemm":
        value = "CVT(c{m}_{j}) * S"
    elif sum_ is not None:
        mine, other = sum_.ratio_a, sum_.ratio_b
        if not layer.attrs["first"]:
            mine, other = other, mine
        read = f"q_vload({at.replace('o +', 'q +', 1)})"
        parts = [(value, literal(mine, "float")), (read, literal(other, "float"))]
        if not layer.attrs["first"]:
            parts = parts[::-1]
        inner = f"VFMA({parts[1][0]}, VSET({parts[1][1]}), VSET({literal(sum_.shift, 'float')}))"
        value = f"q_vclip(VROUND(VFMA({parts[0][0]}, VSET({parts[0][1]}), {inner})))"
    elif (shift := layer.attrs.get("shift")) is not None:
        ratio = literal(shift.ratio, "float")
        value = f"q_vclip(VROUND(VFMA({value}, VSET({ratio}), LD(row + {{j}} * VL))))"
    value = _sloped(layer, value, "row + {j} * 2 * VL")
    real = "" if layer.op == "_QGemm" else "q_v"
    if panel is not None and (panel.first + panel.tile.columns) * lanes > outputs:
        left = outputs - (panel.first + panel.tile.columns - 1) * lanes
        last = panel.tile.columns - 1
        count = f"{{j}} == {last} ? {left} : VL"
        return f"{real or 'f_'}part({at}, {value}, {count});"
    return f"q_vstore({at}, {value});" if real else f"ST({at}, {value});"


def _sloped(layer: Layer, value: str, at: str) -> str:
    """The rounded byte on its two lines, where the layer has them; their factors are at `at`."""
    lines: Slopes | None = layer.attrs.get("slopes")
    if lines is None:
        return value
    return f"q_vslopes({value}, {lines.zero}.0f, LD({at}), LD({at} + VL), {lines.zero_out}.0f)"


def helpers() -> dict[str, str]:
    """The byte on its lines; one of both products is zero."""
    return {
        "q_vslopes": (
            "static inline vf q_vslopes(vf c, float zero, vf up, vf down, float last) {\n"
            "  const vf d = c - VSET(zero), o = VSET(0.0f);\n"
            "  return q_vclip(VROUND(VMAX(o, d) * up + VMIN(o, d) * down) + VSET(last));\n}"
        )
    }


def _lines(layer: Layer, columns: int, lanes: int) -> list[Array]:
    lines: Slopes | None = layer.attrs.get("slopes")
    return [] if lines is None else [lines_of(lines, columns, lanes)]


def _depthwise(layer: Layer, isa: Isa, where: Window) -> Code:
    """A channel in each lane; the filter's taps one after the other."""
    linear, lanes, unit = _linear(layer), isa.lanes, Unit(1, "int16", 0)
    x, y = layer.input(0), layer.output()
    samples, blocks, height, width, _ = x.shape
    _, _, rows, out, _ = y.shape
    kh, kw = where.kernel
    table = np.zeros((blocks * lanes, kh * kw), np.int32)
    table[: linear.bias.size] = linear.weights.reshape(-1, kh * kw)
    split = np.ascontiguousarray(table.reshape(blocks, lanes, -1).transpose(0, 2, 1))
    line, lines = width + sum(_ends(where, 1)), height + sum(_ends(where, 0))
    at = (
        f"in + ((c * {lines} + r * {where.strides[0]} + y * {where.dilations[0]}) * {line} + "
        f"i * {where.strides[1]} + x * {where.dilations[1]}) * VL"
    )
    taps = nest(("y", "x"), (kh, kw), f"v += LD16({at}) * LDI(w + (y * {kw} + x) * VL);")
    value = f"q_vbyte(v, LD(t2 + c * VL), {linear.zero_out}.0f)"
    value = _sloped(layer, value, "t3 + c * 2 * VL")
    pixel = (
        f"vi v = LDI(t1 + c * VL);\n{taps}\n"
        f"q_vstore(y0 + (((n * {blocks} + c) * {rows} + r) * {out} + i) * VL, {value});"
    )
    head = f"const int32_t *w = t0 + c * {kh * kw * lanes};\n"
    body = loop("c", blocks, head + nest(("r", "i"), (rows, out), pixel))
    tables = [split.reshape(-1), *_vectors(linear, blocks, unit, lanes)]
    tables += _lines(layer, blocks, lanes)
    scratch = 2 * prod((blocks, lines, line, lanes))
    return Code(loop("n", samples, _expanded(layer, where, unit) + body), tables, scratch)
