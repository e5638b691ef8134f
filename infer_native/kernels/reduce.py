"""Reductions over axes, softmax and its relatives."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from infer_native.cwriter import (
    address,
    collapse,
    highest,
    literal,
    lowest,
    names,
    nest,
    strides_of,
)
from infer_native.kernels import Code, kernel

if TYPE_CHECKING:
    from infer_native.program import Layer

MANY = 64
# Start, what an element adds (v is the element, a the sum), what becomes of the sum at the end.
_REDUCTIONS = {
    "ReduceSum": ("0", "a += v;", "a"),
    "ReduceMean": ("0", "a += v;", "a / {n}"),
    "ReduceProd": ("1", "a *= v;", "a"),
    "ReduceMax": ("{lowest}", "a = nx_max_{t}(a, v);", "a"),
    "ReduceMin": ("{highest}", "a = nx_min_{t}(a, v);", "a"),
    "ReduceL1": ("0", "a += v < 0 ? -v : v;", "a"),
    "ReduceL2": ("0", "a += v * v;", "sqrt(a)"),
    "ReduceSumSquare": ("0", "a += v * v;", "a"),
    "ReduceLogSum": ("0", "a += v;", "log(a)"),
    "ReduceLogSumExp": ("0", "a += exp(v - top);", "log(a) + top"),
    "GlobalAveragePool": ("0", "a += v;", "a / {n}"),
    "GlobalMaxPool": ("{lowest}", "a = nx_max_{t}(a, v);", "a"),
}


def _axes(layer: Layer) -> tuple[int, ...]:
    rank = len(layer.input(0).shape)
    if layer.op.startswith("Global"):
        return tuple(range(2, rank))
    if "axes" in layer.attrs:
        return tuple(a % rank for a in layer.attrs["axes"])
    given = layer.constant(1)
    if given is None or not given.size:
        return () if layer.attrs.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(int(a) % rank for a in given.reshape(-1))


@kernel(*_REDUCTIONS)
def Reduce(layer: Layer) -> Code:
    """Over any set of axes; the order of the sums is that of the elements."""
    x, over = layer.input(0), _axes(layer)
    strides = strides_of(x.shape)
    kept = [a for a in range(len(x.shape)) if a not in over]
    shape = [x.shape[a] for a in kept]
    outer, (from_, to) = collapse(shape, [[strides[a] for a in kept], strides_of(shape)])
    inner, (walk,) = collapse([x.shape[a] for a in over], [[strides[a] for a in over]])
    i, r = names(len(outer)), names(len(inner), "r")
    at = f"{address(i, from_)} + {address(r, walk)}"
    return Code(_reduction(layer, nest(r, inner, "{body}"), at, outer, address(i, to), over))


def _reduction(
    layer: Layer, loops: str, at: str, outer: list[int], target: str, over: tuple[int, ...]
) -> str:
    x, y = layer.input(0), layer.output()
    start, add, end = _REDUCTIONS[layer.op]
    wide = x.ctype if x.is_float else ("double" if "sqrt" in end or "log" in end else "int64_t")
    if layer.op in ("ReduceMax", "ReduceMin", "GlobalMaxPool"):
        wide = x.ctype
    count = prod(x.shape[a] for a in over)
    if x.is_float and count >= MANY and wide != "double" and start == "0":
        wide = "double"  # a long sum in float loses what it adds
    subs = {"{t}": wide, "{n}": literal(count, wide), "{lowest}": lowest(wide)}
    subs["{highest}"] = highest(wide)
    for mark, text in subs.items():
        start, add, end = (s.replace(mark, text) for s in (start, add, end))
    if wide == "float":
        add, end = (s.replace("exp(", "expf(").replace("log(", "logf(") for s in (add, end))
        end = end.replace("sqrt(", "sqrtf(")
    element = f"const {wide} v = ({wide})x0[{at}];\n"
    top = ""
    if layer.op == "ReduceLogSumExp":
        highest_ = loops.replace("{body}", f"{element}top = v > top ? v : top;")
        top = f"{wide} top = {lowest(wide)};\n{highest_}\n"
    body = (
        f"{top}{wide} a = {start};\n"
        + loops.replace("{body}", element + add)
        + f"\ny0[{target}] = ({y.ctype})({end});"
    )
    return nest(names(len(outer)), outer, body)


@kernel("Softmax", "LogSoftmax")
def Softmax(layer: Layer) -> Code:
    """The maximum is taken off first."""
    x = layer.input(0)
    axis = layer.attrs.get("axis", -1) % len(x.shape)
    outer, n, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    t = x.ctype
    exp, log = ("nx_exp", "logf") if t == "float" else ("exp", "log")
    at = f"o * {n * inner} + j * {inner} + k" if inner > 1 else f"o * {n} + j"
    top = nest(("j",), (n,), f"top = nx_max_{t}(x0[{at}], top);")
    head = f"{t} top = {lowest(t)}, sum = 0;\n{top}\n"
    if t == "float" and inner == 1 and layer.op == "Softmax":
        row = f"nx_softmax(x0 + o * {n}, y0 + o * {n}, {n});"
        return Code(nest(("o",), (outer,), row))
    if layer.op == "Softmax":
        first = nest(("j",), (n,), f"y0[{at}] = {exp}(x0[{at}] - top);")
        then = nest(("j",), (n,), f"sum += y0[{at}];")
        last = nest(("j",), (n,), f"y0[{at}] *= scale;")
        body = f"{head}{first}\n{then}\nconst {t} scale = 1 / sum;\n{last}"
    else:
        first = nest(("j",), (n,), f"sum += {exp}(x0[{at}] - top);")
        last = nest(("j",), (n,), f"y0[{at}] = x0[{at}] - top - {log}(sum);")
        body = f"{head}{first}\n{last}"
    return Code(nest(("o", "k"), (outer, inner), body))


@kernel("Hardmax")
def Hardmax(layer: Layer) -> Code:
    """One at the first maximum, zero elsewhere."""
    x = layer.input(0)
    axis = layer.attrs.get("axis", -1) % len(x.shape)
    outer, n, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    at = f"(o * {n} + j) * {inner} + k"
    find = nest(("j",), (n,), f"if (x0[{at}] > x0[(o * {n} + best) * {inner} + k]) best = j;")
    fill = nest(("j",), (n,), f"y0[{at}] = j == best;")
    return Code(nest(("o", "k"), (outer, inner), f"long best = 0;\n{find}\n{fill}"))
