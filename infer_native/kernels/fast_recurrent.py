"""LSTM, GRU and RNN with constant weights on vectors: two matrix products, then the cell.

The product with the inputs is made for all steps at once, where that is not too large, so that
the weights are read once; gates begin at whole vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import loop
from infer_native.kernels import Code
from infer_native.kernels.dense import calls, panels_for
from infer_native.kernels.gemm import pack
from infer_native.kernels.recurrent import GATES, activation, check, initial

if TYPE_CHECKING:
    from infer_native.isa import Isa
    from infer_native.program import Array, Layer

MAX_AHEAD = 1 << 18  # floats of the product with all inputs


@dataclass
class _Build:
    """What the directions of a layer share, and the tables and functions made so far."""

    layer: Layer
    isa: Isa
    tables: list[Array]
    helpers: dict[str, str]

    def __post_init__(self) -> None:
        self.steps, self.batch, self.width = self.layer.input(0).shape
        self.hidden = self.layer.input(2).shape[2]
        self.gates = GATES[self.layer.op]
        self.padded = -(-self.hidden // self.isa.lanes) * self.isa.lanes
        wide = self.gates * self.padded
        self.ahead = self.steps if self.steps * self.batch * wide <= MAX_AHEAD else 1

    def product(self, matrix: Array, bias: Array, rows: int, a: str, y: str) -> str:
        """C for y[rows, outputs] = a times the matrix [outputs, inputs], plus the bias."""
        outputs, inputs = matrix.shape
        panels = panels_for(rows, outputs, self.isa)
        first = len(self.tables)
        packed = pack(matrix.reshape(outputs, 1, inputs), panels, self.isa.lanes)
        self.tables += [packed, np.ascontiguousarray(bias, np.float32)]
        names = (f"t{first}", f"t{first + 1}", a, y)
        return "\n".join(calls(panels, rows, inputs, outputs, self.isa, self.helpers, *names))

    def gated(self, array: Array) -> Array:
        """[gates * hidden, ...] with each gate at a whole vector."""
        split = array.reshape(self.gates, self.hidden, -1)
        padded = np.zeros((self.gates, self.padded, split.shape[2]), np.float32)
        padded[:, : self.hidden] = split
        return padded.reshape(self.gates * self.padded, -1)


def recurrent(layer: Layer, isa: Isa) -> Code:
    """All directions, one after the other; arguments as the operator's."""
    check(layer)
    build = _Build(layer, isa, [], {})
    state, wide = build.batch * build.hidden, build.gates * build.padded
    sizes = [("h", state), ("c", state), ("q", state), ("g", build.batch * wide)]
    sizes.append(("u", build.ahead * build.batch * wide))
    parts, at = [], 0
    for name, size in sizes:
        parts.append(f"float *{name} = (float *)s + {at};\n(void){name};")
        at += -(-size // isa.lanes) * isa.lanes
    for d in range(layer.input(1).shape[0]):
        reverse = d == 1 or layer.attrs.get("direction", "forward") == "reverse"
        parts.append("{\n" + _direction(build, d, reverse) + "\n}")
    return Code("\n".join(parts), build.tables, 4 * at, build.helpers)


def _direction(build: _Build, d: int, reverse: bool) -> str:
    layer, batch, hidden = build.layer, build.batch, build.hidden
    wide, directions = build.gates * build.padded, layer.input(1).shape[0]
    w, r, w_bias, r_bias = _weights(build, d)
    source, rows = ("x0", build.steps * batch) if build.ahead > 1 else ("xp", batch)
    inputs = build.product(w, w_bias, rows, source, "u")
    states = ["h", "c"] if layer.op == "LSTM" else ["h"]
    start = [initial(layer, 5 + n, name, d, batch * hidden) for n, name in enumerate(states)]
    time = f"{build.steps - 1} - step" if reverse else "step"
    if build.ahead > 1:
        start.append(inputs)
        body = f"const long t = {time};\nconst float *in = u + t * {batch * wide};\n"
    else:
        body = f"const long t = {time};\nconst float *xp = x0 + t * {batch * build.width};\n"
        body += f"{inputs}\nconst float *in = u;\n"
    body += _step(build, d, r, r_bias)
    if layer.has_output(0):
        at = f"(t * {directions} + {d}) * {batch * hidden} + j"
        body += "\n" + loop("j", batch * hidden, f"y0[{at}] = h[j];")
    ends = [
        loop("j", batch * hidden, f"y{number}[{d * batch * hidden} + j] = {name}[j];")
        for number, name in enumerate(states, 1)
        if layer.has_output(number)
    ]
    return "\n".join([*start, loop("step", build.steps, body), *ends])


def _weights(build: _Build, d: int) -> tuple[Array, Array, Array, Array]:
    """W, R and their biases; both biases go to W where no gate stands between the products."""
    layer = build.layer
    w, r = (_data(layer, index)[d] for index in (1, 2))
    both = np.zeros((2, build.gates * build.hidden), np.float32)
    if layer.optional(3) is not None:
        both = _data(layer, 3)[d].reshape(2, -1).copy()
    kept = layer.op == "GRU" and layer.attrs.get("linear_before_reset", 0)
    late = slice(2 * build.hidden, None) if kept else slice(0, 0)
    start = both.sum(axis=0)
    start[late] = both[0, late]
    rest = np.zeros_like(start)
    rest[late] = both[1, late]
    biases = [build.gated(b).reshape(-1) for b in (start, rest)]
    return build.gated(w), build.gated(r), biases[0], biases[1]


def _data(layer: Layer, index: int) -> Array:
    tensor = layer.input(index)
    assert tensor.root.data is not None
    return tensor.root.data.reshape(tensor.shape)


def _step(build: _Build, d: int, r: Array, bias: Array) -> str:
    batch, n, p = build.batch, build.hidden, build.padded
    wide = build.gates * p
    split = build.layer.op == "GRU" and not build.layer.attrs.get("linear_before_reset", 0)
    if not split:
        cell = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[build.layer.op](build, d)
        rows = (
            f"const float *i = in + b * {wide}, *g0 = g + b * {wide};\nfloat *hp = h + b * {n};\n"
        )
        product = build.product(r, bias, batch, "h", "g")
        return f"{product}\n{loop('b', batch, rows + cell)}"
    layer = build.layer
    first = build.product(r[: 2 * p], bias[: 2 * p], batch, "h", "g")
    second = build.product(r[2 * p :], bias[2 * p :], batch, "q", f"g + {2 * p * batch}")
    where = f"const float *i = in + b * {wide};\nfloat *g0 = g + b * {2 * p}, *hp = h + b * {n};\n"
    gate = activation(layer, d, 0, "i[j] + g0[j]")
    reset = activation(layer, d, 0, f"i[{p} + j] + g0[{p} + j]")
    new = activation(layer, d, 1, f"i[{2 * p} + j] + l[j]")
    early = loop("j", n, f"g0[j] = {gate};\nq[b * {n} + j] = hp[j] * {reset};")
    late = f"const float *l = g + {2 * p * batch} + b * {p};\n"
    late += loop("j", n, f"hp[j] = (1 - g0[j]) * {new} + g0[j] * hp[j];")
    return "\n".join(
        [first, loop("b", batch, where + early), second, loop("b", batch, where + late)]
    )


def _rnn(build: _Build, d: int) -> str:
    return loop("j", build.hidden, f"hp[j] = {activation(build.layer, d, 0, 'i[j] + g0[j]')};")


def _gru(build: _Build, d: int) -> str:
    layer, p = build.layer, build.padded
    gate = activation(layer, d, 0, "i[j] + g0[j]")
    reset = activation(layer, d, 0, f"i[{p} + j] + g0[{p} + j]")
    new = activation(layer, d, 1, f"i[{2 * p} + j] + r * g0[{2 * p} + j]")
    line = f"const float z = {gate}, r = {reset};\nhp[j] = (1 - z) * {new} + z * hp[j];"
    return loop("j", build.hidden, line)


def _lstm(build: _Build, d: int) -> str:
    """Gates in ONNX's order: input, output, forget, cell."""
    layer, p = build.layer, build.padded
    sums = [f"i[{k * p} + j] + g0[{k * p} + j]" for k in range(4)]
    line = (
        f"const float enter = {activation(layer, d, 0, sums[0])};\n"
        f"const float forget = {activation(layer, d, 0, sums[2])};\n"
        f"const float cell = forget * cp[j] + enter * {activation(layer, d, 1, sums[3])};\n"
        f"const float out = {activation(layer, d, 0, sums[1])};\n"
        f"cp[j] = cell;\nhp[j] = out * {activation(layer, d, 2, 'cell')};"
    )
    return f"float *cp = c + b * {build.hidden};\n" + loop("j", build.hidden, line)
