"""Normalisation layers."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from infer_native.cwriter import literal, loop, nest
from infer_native.kernels import Code, kernel

if TYPE_CHECKING:
    from infer_native.program import Layer


def _sqrt(ctype: str) -> str:
    return "sqrtf" if ctype == "float" else "sqrt"


def _standardised(t: str, count: int, epsilon: float, store: str, *, centred: bool = True) -> str:
    """Mean and deviation of xp[0..count), in double sums; `store` writes v."""
    square = f"const {t} d = xp[j] - mean;\nsquares += d * d;"
    sums = (
        f"double sum = 0;\n{loop('j', count, 'sum += xp[j];')}\n",
        f"double squares = 0;\n{loop('j', count, square)}\n",
    )
    if t == "float":
        sums = (
            f"const double sum = nx_total(xp, {count});\n",
            f"const double squares = nx_squares(xp, {count}, mean);\n",
        )
    mean = f"{sums[0]}const {t} mean = ({t})(sum / {count});\n"
    if not centred:
        mean = f"const {t} mean = 0;\n"
    return (
        f"{mean}{sums[1]}"
        f"const {t} scale = 1 / {_sqrt(t)}(({t})(squares / {count}) + {literal(epsilon, t)});\n"
        + loop("j", count, f"const {t} v = (xp[j] - mean) * scale;\n{store}")
    )


@kernel("LayerNormalization", "RMSNormalization")
def LayerNormalization(layer: Layer) -> Code:
    """Over the axes from `axis` on; mean and inverse deviation are outputs where asked for."""
    x = layer.input(0)
    axis = layer.attrs.get("axis", -1) % len(x.shape)
    outer, inner = prod(x.shape[:axis]), prod(x.shape[axis:])
    scale = layer.input(1)
    if scale.size != inner:
        raise layer.refused("the scale does not cover the normalised axes")
    bias = layer.optional(2)
    store = f"y0[i * {inner} + j] = v * x1[j]{' + x2[j]' if bias is not None else ''};"
    body = f"const {x.ctype} *xp = x0 + i * {inner};\n" + _standardised(
        x.ctype, inner, layer.attrs.get("epsilon", 1e-5), store,
        centred=layer.op == "LayerNormalization",
    )  # fmt: skip
    body += "\ny1[i] = mean;" if layer.has_output(1) else ""
    body += "\ny2[i] = scale;" if layer.has_output(2) else ""
    return Code(nest(("i",), (outer,), body))


@kernel("InstanceNormalization", "GroupNormalization")
def GroupNormalization(layer: Layer) -> Code:
    """Each group of channels of each sample; for InstanceNormalization each channel."""
    x = layer.input(0)
    channels = x.shape[1]
    groups = layer.attrs.get("num_groups", channels)
    inner, each = prod(x.shape[2:]), channels // groups
    count = each * inner
    channel = f"(i % {groups}) * {each} + j / {inner}"
    if layer.input(1).size != channels:
        channel = f"i % {groups}"  # before opset 21 one scale for each group
    store = f"y0[i * {count} + j] = v * x1[{channel}] + x2[{channel}];"
    body = f"const {x.ctype} *xp = x0 + i * {count};\n" + _standardised(
        x.ctype, count, layer.attrs.get("epsilon", 1e-5), store
    )
    return Code(nest(("i",), (x.shape[0] * groups,), body))


@kernel("BatchNormalization")
def BatchNormalization(layer: Layer) -> Code:
    """By stored statistics; the training mode has no kernel."""
    x = layer.input(0)
    if layer.attrs.get("training_mode", 0):
        raise layer.refused("the training mode has no kernel")
    channels, inner, t = x.shape[1], prod(x.shape[2:]), x.ctype
    epsilon = literal(layer.attrs.get("epsilon", 1e-5), t)
    head = (
        f"const {t} k = x1[c] / {_sqrt(t)}(x4[c] + {epsilon});\nconst {t} b = x2[c] - x3[c] * k;\n"
    )
    at = f"(n * {channels} + c) * {inner} + i"
    return Code(
        nest(
            ("n", "c"),
            (x.shape[0], channels),
            head + loop("i", inner, f"y0[{at}] = x0[{at}] * k + b;"),
        )
    )


@kernel("LpNormalization")
def LpNormalization(layer: Layer) -> Code:
    """Divided by the norm along an axis; a norm of 0 divides by 1."""
    x = layer.input(0)
    axis = layer.attrs.get("axis", -1) % len(x.shape)
    outer, size, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    at = f"(i * {size} + j) * {inner} + k"
    one = layer.attrs.get("p", 2) == 1
    term = f"x0[{at}] < 0 ? -x0[{at}] : x0[{at}]" if one else f"x0[{at}] * x0[{at}]"
    norm = "sum" if one else f"{_sqrt(x.ctype)}(sum)"
    body = (
        f"{x.ctype} sum = 0;\n{loop('j', size, f'sum += {term};')}\n"
        f"const {x.ctype} norm = sum == 0 ? 1 : {norm};\n"
        + loop("j", size, f"y0[{at}] = x0[{at}] / norm;")
    )
    return Code(nest(("i", "k"), (outer, inner), body))


@kernel("MeanVarianceNormalization")
def MeanVarianceNormalization(layer: Layer) -> Code:
    """Over the default axes 0, 2, 3: per channel."""
    x = layer.input(0)
    if sorted(layer.attrs.get("axes", [0, 2, 3])) != [0, *range(2, len(x.shape))]:
        raise layer.refused("only normalisation per channel has a kernel")
    n, c, inner, t = x.shape[0], x.shape[1], prod(x.shape[2:]), x.ctype

    def each(line: str) -> str:
        return nest(("b", "i"), (n, inner), line)

    at = f"(b * {c} + c) * {inner} + i"
    body = (
        f"double sum = 0, squares = 0;\n{each(f'sum += x0[{at}];')}\n"
        f"const {t} mean = ({t})(sum / {n * inner});\n"
        + each(f"squares += (x0[{at}] - mean) * (x0[{at}] - mean);")
        + f"\nconst {t} deviation = {_sqrt(t)}(({t})(squares / {n * inner}));\n"
        f"const {t} scale = 1 / (deviation + {literal(1e-9, t)});\n"
        + each(f"y0[{at}] = (x0[{at}] - mean) * scale;")
    )
    return Code(nest(("c",), (c,), body))


@kernel("LRN")
def LRN(layer: Layer) -> Code:
    """Divided by a power of the local sum of squares over channels."""
    x = layer.input(0)
    n, c, inner, t, size = x.shape[0], x.shape[1], prod(x.shape[2:]), x.ctype, layer.attrs["size"]
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    a, b, k = (
        literal(layer.attrs.get(p, d), t)
        for p, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    at = f"x0[(n * {c} + j) * {inner} + i]"
    body = (
        f"{t} sum = 0;\nconst long first = c < {before} ? 0 : c - {before};\n"
        f"const long end = c + {after + 1} > {c} ? {c} : c + {after + 1};\n"
        + loop("j", "end", f"sum += {at} * {at};", "first")
        + f"\nconst long o = (n * {c} + c) * {inner} + i;\n"
        f"y0[o] = x0[o] / {'powf' if t == 'float' else 'pow'}({k} + {a} / {size} * sum, {b});"
    )
    return Code(nest(("n", "c", "i"), (n, c, inner), body))
