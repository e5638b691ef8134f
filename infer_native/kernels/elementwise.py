"""Element by element with broadcasting: one loop for a whole chain of operators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from infer_native.cwriter import address, broadcast_strides, collapse, literal, names, nest
from infer_native.kernels import Code, functions, kernel
from infer_native.program import C_TYPES, Layer, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Attrs = dict[str, Any]
    Expression = Callable[[Sequence[str], str, Attrs], str]


@dataclass(frozen=True)
class Step:
    """A temporary of a chain: its type, the expression with {0}, {1}, ... for the arguments.

    An argument is the number of an input of the layer, or of a step, counted after the inputs.
    `vector` is the expression on vectors of floats, where there is one.
    """

    ctype: str
    expression: str
    arguments: tuple[int, ...]
    vector: str = ""


def _f(name: str, ctype: str) -> str:
    """A function of libm in the type's precision."""
    return name + ("f" if ctype == "float" else "")


def own(name: str, ctype: str) -> str:
    """exp, erf or tanh: for float32 a function that compilers turn into vectors."""
    return f"nx_{name}" if ctype == "float" else name


def _libm(name: str) -> Expression:
    return lambda a, t, _: f"{_f(name, t)}({a[0]})"


def _infix(sign: str) -> Expression:
    return lambda a, _, __: f"({a[0]} {sign} {a[1]})"


def _fold(expression: Callable[[str, str, str], str]) -> Expression:
    return lambda a, t, _: reduce(lambda x, y: expression(x, y, t), a)


def _larger(a: str, b: str, t: str) -> str:
    """NaN wins, as in NumPy."""
    nan = f" || {a} != {a}" if t in ("float", "double") else ""
    return f"(({a} > {b}{nan}) ? {a} : {b})"


def _smaller(a: str, b: str, t: str) -> str:
    nan = f" || {a} != {a}" if t in ("float", "double") else ""
    return f"(({a} < {b}{nan}) ? {a} : {b})"


def _n(attrs: Attrs, name: str, default: float, ctype: str) -> str:
    return literal(attrs.get(name, default), ctype)


def _clamp01(text: str, t: str) -> str:
    return f"nx_clamp_{t}({text}, 0, 1)"


def _gelu(a: Sequence[str], t: str, attrs: Attrs) -> str:
    x = a[0]
    half, one = literal(0.5, t), literal(1, t)
    if attrs.get("approximate", "none") == "tanh":
        k, c = literal(0.7978845608028654, t), literal(0.044715, t)
        return f"({half} * {x} * ({one} + {own('tanh', t)}({k} * ({x} + {c} * {x} * {x} * {x}))))"
    return f"({half} * {x} * ({one} + {own('erf', t)}({x} * {literal(0.7071067811865476, t)})))"


def _isinf(a: Sequence[str], _: str, attrs: Attrs) -> str:
    tests = []
    if attrs.get("detect_positive", 1):
        tests.append(f"{a[0]} == INFINITY")
    if attrs.get("detect_negative", 1):
        tests.append(f"{a[0]} == -INFINITY")
    return "(" + (" || ".join(tests) or "0") + ")"


def _mod(a: Sequence[str], t: str, attrs: Attrs) -> str:
    if t in ("float", "double"):
        rest = f"{_f('fmod', t)}({a[0]}, {a[1]})"
    else:
        rest = f"({a[1]} ? {a[0]} % {a[1]} : 0)"
    if attrs.get("fmod", 0) or t.startswith("u"):
        return rest
    return f"(({rest} != 0 && ({rest} < 0) != ({a[1]} < 0)) ? {rest} + {a[1]} : {rest})"


def _shift(a: Sequence[str], t: str, attrs: Attrs) -> str:
    """C does not say what shifting by the width or more gives: nothing, or the sign, is left."""
    bits, unsigned = int(t.strip("uint_")), "u" + t.removeprefix("u")
    amount = f"({unsigned}){a[1]}"
    if attrs["direction"] == "LEFT":
        return f"({amount} < {bits} ? ({t})(({unsigned}){a[0]} << {amount}) : 0)"
    return (
        f"({a[0]} >> ({amount} < {bits} ? {amount} : {bits - 1}))"
        if unsigned != t
        else (f"({amount} < {bits} ? {a[0]} >> {amount} : 0)")
    )


def _pow(a: Sequence[str], t: str, _: Attrs) -> str:
    if t in ("float", "double"):
        return f"{_f('pow', t)}({a[0]}, ({t}){a[1]})"
    return f"({t})pow((double){a[0]}, (double){a[1]})"


def _div(a: Sequence[str], t: str, _: Attrs) -> str:
    if t in ("float", "double"):
        return f"({a[0]} / {a[1]})"
    return f"({a[1]} ? {a[0]} / {a[1]} : 0)"


_EXPRESSIONS: dict[str, Expression] = {
    **{op: _libm(op.lower()) for op in (
        "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Floor", "Log",
        "Sin", "Sinh", "Sqrt", "Tan",
    )},
    "Erf": lambda a, t, _: f"{own('erf', t)}({a[0]})",
    "Tanh": lambda a, t, _: f"{own('tanh', t)}({a[0]})",
    "Exp": lambda a, t, _: f"{own('exp', t)}({a[0]})",
    "Round": _libm("rint"),
    "Abs": lambda a, t, _: (
        f"{_f('fabs', t)}({a[0]})" if t in ("float", "double")
        else a[0] if t.startswith("u") else f"({a[0]} < 0 ? -{a[0]} : {a[0]})"
    ),
    "Neg": lambda a, _, __: f"(-{a[0]})",
    "Not": lambda a, _, __: f"(!{a[0]})",
    "BitwiseNot": lambda a, _, __: f"(~{a[0]})",
    "Reciprocal": lambda a, t, _: f"({literal(1, t)} / {a[0]})",
    "Sign": lambda a, t, _: f"({t})(({a[0]} > 0) - ({a[0]} < 0))",
    "IsNaN": lambda a, _, __: f"({a[0]} != {a[0]})",
    "IsInf": _isinf,
    "Add": _infix("+"), "Sub": _infix("-"), "Mul": _infix("*"), "Div": _div, "Mod": _mod,
    "Pow": _pow, "And": _infix("&&"), "Or": _infix("||"),
    "Xor": lambda a, _, __: f"(!{a[0]} != !{a[1]})",
    "BitwiseAnd": _infix("&"), "BitwiseOr": _infix("|"), "BitwiseXor": _infix("^"),
    "BitShift": _shift,
    "Equal": _infix("=="), "Greater": _infix(">"), "GreaterOrEqual": _infix(">="),
    "Less": _infix("<"), "LessOrEqual": _infix("<="),
    "Max": _fold(_larger), "Min": _fold(_smaller), "Sum": _fold(lambda a, b, _: f"({a} + {b})"),
    "Mean": lambda a, t, _: f"(({' + '.join(a)}) / {literal(len(a), t)})",
    "Where": lambda a, _, __: f"({a[0]} ? {a[1]} : {a[2]})",
    "Relu": lambda a, t, _: f"({a[0]} < 0 ? {literal(0, t)} : {a[0]})",
    "LeakyRelu": lambda a, t, k: f"({a[0]} < 0 ? {a[0]} * {_n(k, 'alpha', 0.01, t)} : {a[0]})",
    "PRelu": lambda a, _, __: f"({a[0]} < 0 ? {a[0]} * {a[1]} : {a[0]})",
    "Elu": lambda a, t, k: (
        f"({a[0]} < 0 ? {_n(k, 'alpha', 1, t)} * {_f('expm1', t)}({a[0]}) : {a[0]})"
    ),
    "Selu": lambda a, t, k: (
        f"({_n(k, 'gamma', 1.05070102214813232421875, t)} * ({a[0]} < 0 ? "
        f"{_n(k, 'alpha', 1.67326319217681884765625, t)} * {_f('expm1', t)}({a[0]}) : {a[0]}))"
    ),
    "Celu": lambda a, t, k: (
        f"({a[0]} < 0 ? {_n(k, 'alpha', 1, t)} * {_f('expm1', t)}({a[0]} / "
        f"{_n(k, 'alpha', 1, t)}) : {a[0]})"
    ),
    "ThresholdedRelu": lambda a, t, k: (
        f"({a[0]} > {_n(k, 'alpha', 1, t)} ? {a[0]} : {literal(0, t)})"
    ),
    "Shrink": lambda a, t, k: (
        f"({t})({a[0]} > {_n(k, 'lambd', 0.5, 'double')} ? {a[0]} - {_n(k, 'bias', 0, t)} : "
        f"{a[0]} < -{_n(k, 'lambd', 0.5, 'double')} ? {a[0]} + {_n(k, 'bias', 0, t)} : 0)"
    ),
    "Sigmoid": lambda a, t, _: (
        f"(1.0f / (1.0f + nx_exp(-{a[0]})))" if t == "float" else f"(1.0 / (1.0 + exp(-{a[0]})))"
    ),
    "HardSigmoid": lambda a, t, k: _clamp01(
        f"{_n(k, 'alpha', 0.2, t)} * {a[0]} + {_n(k, 'beta', 0.5, t)}", t
    ),
    "HardSwish": lambda a, t, _: (
        f"({a[0]} * " + _clamp01(f"{a[0]} * {literal(1 / 6, t)} + {literal(0.5, t)}", t) + ")"
    ),
    "Swish": lambda a, t, k: (
        f"({a[0]} / (1 + {'nx_exp' if t == 'float' else 'exp'}(-{_n(k, 'alpha', 1, t)} * {a[0]})))"
    ),
    "Softplus": lambda a, t, _: (
        f"(({a[0]} > 0 ? {a[0]} : 0) + {_f('log1p', t)}({_f('exp', t)}(-{_f('fabs', t)}({a[0]}))))"
    ),
    "Softsign": lambda a, t, _: f"({a[0]} / (1 + {_f('fabs', t)}({a[0]})))",
    "Mish": lambda a, t, _: (
        f"({a[0]} * {own('tanh', t)}(({a[0]} > 0 ? {a[0]} : 0) + "
        f"{_f('log1p', t)}({_f('exp', t)}(-{_f('fabs', t)}({a[0]})))))"
    ),
    "Gelu": _gelu,
}  # fmt: skip


def _unit(text: str) -> str:
    return f"VMIN(VSET(1.0f), VMAX(VZERO(), {text}))"


# The same on vectors of floats; NaN is the second operand of VMAX and VMIN, and stays.
_VECTORS: dict[str, Callable[[Attrs], str]] = {
    "Add": lambda _: "({0} + {1})",
    "Sub": lambda _: "({0} - {1})",
    "Mul": lambda _: "({0} * {1})",
    "Div": lambda _: "({0} / {1})",
    "Relu": lambda _: "VMAX(VZERO(), {0})",
    "LeakyRelu": lambda k: (
        f"(VMAX(VZERO(), {{0}}) + VMIN(VZERO(), {{0}}) * VSET({_n(k, 'alpha', 0.01, 'float')}))"
    ),
    "PRelu": lambda _: "(VMAX(VZERO(), {0}) + VMIN(VZERO(), {0}) * {1})",
    "HardSigmoid": lambda k: _unit(
        f"({{0}} * VSET({_n(k, 'alpha', 0.2, 'float')}) + VSET({_n(k, 'beta', 0.5, 'float')}))"
    ),
    "HardSwish": lambda _: (
        "({0} * " + _unit(f"({{0}} * VSET({literal(1 / 6, 'float')}) + VSET(0.5f))") + ")"
    ),
}
MAPS = (*_EXPRESSIONS, "Cast", "CastLike", "Clip")


def as_map(layer: Layer) -> Layer:
    """An operator of this family as a chain of one step."""
    if layer.op == "Clip":
        return _clip(layer)
    if layer.op in ("Cast", "CastLike"):
        return _cast(layer)
    inputs = list(layer.inputs)
    # Comparisons and IsNaN give booleans: the type of the arithmetic is that of the inputs.
    first = layer.input(1 if layer.op == "Where" else 0)
    out = layer.output()
    slots = [f"{{{i}}}" for i in range(len(inputs))]
    text = _EXPRESSIONS[layer.op](slots, first.ctype, layer.attrs)
    vector = _VECTORS[layer.op](layer.attrs) if layer.op in _VECTORS else ""
    step = Step(out.ctype, f"({out.ctype}){text}", tuple(range(len(inputs))), vector)
    return Layer("_Map", layer.name, inputs, layer.outputs, {"steps": [step]})


def _clip(layer: Layer) -> Layer:
    inputs = [layer.input(0)]
    text, vector, t = "{0}", "{0}", inputs[0].ctype
    for index, name in ((1, "max"), (2, "min")):
        limit = layer.optional(index)
        if limit is None:
            continue
        if limit.root.data is not None:
            value = literal(limit.root.data.reshape(()), t)
            vector = f"V{name.upper()}(VSET({value}), {vector})" if vector else ""
        else:
            inputs.append(limit)
            value, vector = f"{{{len(inputs) - 1}}}", ""
        text = f"nx_{name}_{t}({text}, {value})"
    step = Step(t, f"({t}){text}", tuple(range(len(inputs))), vector)
    return Layer("_Map", layer.name, list(inputs), layer.outputs, {"steps": [step]})


def _cast(layer: Layer) -> Layer:
    x, y = layer.input(0), layer.output()
    if y.dtype == bool:
        text = "({0} != 0)"
    elif x.is_float and not y.is_float:
        text = f"({y.ctype})(int64_t){{0}}" if y.dtype.itemsize < 8 else f"({y.ctype}){{0}}"
    else:
        text = f"({y.ctype}){{0}}"
    step = Step(y.ctype, text, (0,))
    return Layer("_Map", layer.name, [x], layer.outputs, {"steps": [step]})


@kernel("_Map")
def emit_map(layer: Layer) -> Code:
    """One loop nest over the output; each input with its own strides."""
    inputs = [t for t in layer.inputs if t is not None]
    out = layer.output()
    strides = [broadcast_strides(t.shape, out.shape) for t in inputs]
    dims, walks = collapse(out.shape, [broadcast_strides(out.shape, out.shape), *strides])
    index = names(len(dims))
    lines = [
        f"const {t.ctype} v{i} = x{i}[{address(index, walks[i + 1])}];"
        for i, t in enumerate(inputs)
    ]
    count = len(inputs)
    steps: list[Step] = layer.attrs["steps"]
    for number, step in enumerate(steps):
        text = step.expression.format(*(f"v{a}" for a in step.arguments))
        lines.append(f"const {step.ctype} v{count + number} = {text};")
    lines.append(f"y0[{address(index, walks[0])}] = v{count + len(steps) - 1};")
    return Code(nest(index, dims, "\n".join(lines)) if dims else "\n".join(lines))


@kernel(*MAPS)
def emit_single(layer: Layer) -> Code:
    """An operator that no chain took."""
    return emit_map(as_map(layer))


def merged(first: Layer, then: Layer) -> Layer:
    """`then` with the steps of `first`, whose output it reads, in front."""
    inputs: list[Tensor | None] = list(first.inputs)
    place: dict[int, int] = {}
    joint = first.output().root
    rest = [(n, t) for n, t in enumerate(then.inputs) if t is None or t.root is not joint]
    for number, tensor in rest:
        if tensor in inputs:
            place[number] = inputs.index(tensor)
        else:
            place[number] = len(inputs)
            inputs.append(tensor)
    shift = len(inputs) - len(first.inputs)
    steps = [_moved(s, len(first.inputs), shift) for s in first.attrs["steps"]]
    result = len(inputs) + len(steps) - 1
    offset = len(inputs) + len(steps)
    for step in then.attrs["steps"]:
        arguments = tuple(
            place.get(a, result) if a < len(then.inputs) else a - len(then.inputs) + offset
            for a in step.arguments
        )
        steps.append(replace(step, arguments=arguments))
    return Layer("_Map", then.name, inputs, then.outputs, {"steps": steps})


def _moved(step: Step, inputs: int, shift: int) -> Step:
    arguments = tuple(a if a < inputs else a + shift for a in step.arguments)
    return replace(step, arguments=arguments)


def helpers() -> dict[str, str]:
    """Limits for every type, NaN kept; exp, erf and tanh."""
    found = {}
    for t in dict.fromkeys(C_TYPES.values()):
        nan = " || a != a" if t in ("float", "double") else ""
        for name, sign in (("max", ">"), ("min", "<")):
            found[f"nx_{name}_{t}"] = (
                f"static inline {t} nx_{name}_{t}({t} a, {t} b) "
                f"{{ return (a {sign} b{nan}) ? a : b; }}"
            )
    for t in ("float", "double"):
        found[f"nx_clamp_{t}"] = (
            f"static inline {t} nx_clamp_{t}({t} a, {t} low, {t} high) "
            f"{{ return nx_min_{t}(nx_max_{t}(a, low), high); }}"
        )
    return {**found, **functions.helpers()}
