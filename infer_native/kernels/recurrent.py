"""LSTM, GRU and RNN, step by step, with the gates in the order of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infer_native.cwriter import literal, loop
from infer_native.kernels import Code, kernel

if TYPE_CHECKING:
    from infer_native.program import Layer

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_FUNCTIONS = {
    "sigmoid": "(1.0f / (1.0f + nx_exp(-({}))))",
    "tanh": "nx_tanh({})",
    "relu": "nx_max_float({}, 0.0f)",
    "softsign": "(({0}) / (1.0f + fabsf({0})))",
}


def check(layer: Layer) -> None:
    """What has no kernel is refused by its name."""
    attrs = layer.attrs
    if layer.input(0).ctype != "float":
        raise layer.refused("only float32 has a kernel")
    if attrs.get("layout", 0) or "clip" in attrs or attrs.get("input_forget", 0):
        raise layer.refused("layout 1, clip and input_forget have no kernel")
    lengths = layer.optional(4)
    if lengths is not None:
        given, steps = lengths.root.data, layer.input(0).shape[0]
        if given is None or (given != steps).any():
            raise layer.refused("sequence_lens has no kernel")
    unknown = [a for a in _activations(layer) if a.lower() not in _FUNCTIONS]
    if unknown or attrs.get("activation_alpha") or attrs.get("activation_beta"):
        raise layer.refused(f"its activations {', '.join(_activations(layer))} have no kernel")


def _activations(layer: Layer) -> list[str]:
    count = layer.input(1).shape[0]
    return list(layer.attrs.get("activations") or _DEFAULTS[layer.op] * count)


@kernel("LSTM", "GRU", "RNN")
def Recurrent(layer: Layer) -> Code:
    """One direction after the other; the state lives in the scratch memory."""
    check(layer)
    directions = layer.input(1).shape[0]
    batch, hidden = layer.input(0).shape[1], layer.input(2).shape[2]
    parts = ["float *h = (float *)s;", f"float *c = h + {batch * hidden};"]
    parts += [f"float *g = c + {batch * hidden};", "(void)c;"]
    for d in range(directions):
        reverse = d == 1 or layer.attrs.get("direction", "forward") == "reverse"
        parts.append("{\n" + _direction(layer, d, reverse) + "\n}")
    gates = GATES[layer.op]
    return Code("\n".join(parts), scratch=4 * (2 * batch * hidden + (gates + 1) * hidden))


def _direction(layer: Layer, d: int, reverse: bool) -> str:
    x, w = layer.input(0), layer.input(1)
    steps, batch, width = x.shape
    hidden, directions, gates = layer.input(2).shape[2], w.shape[0], GATES[layer.op]
    states = ["h", "c"] if layer.op == "LSTM" else ["h"]
    start = [initial(layer, 5 + n, name, d, batch * hidden) for n, name in enumerate(states)]
    time = f"{steps - 1} - step" if reverse else "step"
    body = (
        f"const long t = {time};\n"
        f"const float *xp = x0 + (t * {batch} + b) * {width};\nfloat *hp = h + b * {hidden};\n"
        f"const float *wp = x1 + {d * gates * hidden * width};\n"
        f"const float *rp = x2 + {d * gates * hidden * hidden};\n" + _cell(layer, d, width, hidden)
    )
    if layer.has_output(0):
        at = f"((t * {directions} + {d}) * {batch} + b) * {hidden} + j"
        body += "\n" + loop("j", hidden, f"y0[{at}] = hp[j];")
    ends = []
    for number, name in enumerate(states, 1):
        if layer.has_output(number):
            ends.append(
                loop("j", batch * hidden, f"y{number}[{d * batch * hidden} + j] = {name}[j];")
            )
    return "\n".join([*start, loop("step", steps, loop("b", batch, body)), *ends])


def initial(layer: Layer, index: int, name: str, d: int, count: int) -> str:
    """A state before the first step."""
    given = layer.optional(index) is not None
    return loop("j", count, f"{name}[j] = {f'x{index}[{d * count} + j]' if given else '0'};")


def _dots(layer: Layer, d: int, width: int, hidden: int, first: int, end: int, h: str) -> str:
    """g[first..end) = W x + R h + both biases."""
    gates = GATES[layer.op]
    bias = "0"
    if layer.optional(3) is not None:
        base = d * 2 * gates * hidden
        bias = f"x3[{base} + r] + x3[{base + gates * hidden} + r]"
    row = (
        f"float sum = {bias};\n"
        + loop("k", width, f"sum += wp[r * {width} + k] * xp[k];")
        + "\n"
        + loop("k", hidden, f"sum += rp[r * {hidden} + k] * {h}[k];")
        + "\ng[r] = sum;"
    )
    return loop("r", end, row, first)


def activation(layer: Layer, d: int, which: int, text: str) -> str:
    """One of the functions of a cell, by its number in the operator's list."""
    each = len(_DEFAULTS[layer.op])
    return _FUNCTIONS[_activations(layer)[d * each + which].lower()].format(text)


def _cell(layer: Layer, d: int, width: int, n: int) -> str:
    if layer.op == "RNN":
        return (
            _dots(layer, d, width, n, 0, n, "hp")
            + "\n"
            + loop("j", n, f"hp[j] = {activation(layer, d, 0, 'g[j]')};")
        )
    if layer.op == "GRU":
        return _gru(layer, d, width, n)
    peep = layer.optional(7) is not None

    def gate(number: int, weight: int, state: str) -> str:
        extra = f" + x7[{(d * 3 + weight) * n} + j] * {state}" if peep else ""
        return f"g[{number * n} + j]{extra}"

    line = (
        f"const float in = {activation(layer, d, 0, gate(0, 0, 'cp[j]'))};\n"
        f"const float forget = {activation(layer, d, 0, gate(2, 2, 'cp[j]'))};\n"
        f"const float cell = forget * cp[j] + in * {activation(layer, d, 1, f'g[{3 * n} + j]')};\n"
        f"const float out = {activation(layer, d, 0, gate(1, 1, 'cell'))};\n"
        f"cp[j] = cell;\nhp[j] = out * {activation(layer, d, 2, 'cell')};"
    )
    return (
        f"float *cp = c + b * {n};\n"
        + _dots(layer, d, width, n, 0, 4 * n, "hp")
        + "\n"
        + loop("j", n, line)
    )


def _gru(layer: Layer, d: int, width: int, n: int) -> str:
    """Gates z, r, h; the reset gate before or after the recurrent product."""
    has_bias = layer.optional(3) is not None
    wb = f"x3[{d * 6 * n + 2 * n} + j]" if has_bias else literal(0, "float")
    rb = f"x3[{d * 6 * n + 5 * n} + j]" if has_bias else literal(0, "float")
    first = _dots(layer, d, width, n, 0, 2 * n, "hp")
    linear = layer.attrs.get("linear_before_reset", 0)
    new = f"in + rr[{n} + j] * late" if linear else "in + late"
    old = "hp[k]" if linear else f"(rr[{n} + k] * hp[k])"
    gates = (
        f"float in = {wb}, late = {rb};\n"
        + loop("k", width, f"in += wp[({2 * n} + j) * {width} + k] * xp[k];")
        + "\n"
        + loop("k", n, f"late += rp[({2 * n} + j) * {n} + k] * {old};")
        + f"\ng[{2 * n} + j] = {activation(layer, d, 1, new)};"
    )
    squash = loop("j", 2 * n, f"g[j] = {activation(layer, d, 0, 'g[j]')};")
    mix = loop("j", n, f"hp[j] = (1 - g[j]) * g[{2 * n} + j] + g[j] * hp[j];")
    return f"{first}\n{squash}\nconst float *rr = g;\n{loop('j', n, gates)}\n{mix}"
