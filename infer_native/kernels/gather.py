"""Elements by index: Gather and its relatives, scattering, one-hot, running sums, searching."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from infer_native.cwriter import address, literal, names, nest, strides_of
from infer_native.kernels import Code, kernel

if TYPE_CHECKING:
    from infer_native.program import Layer


def _index(text: str, size: int) -> str:
    """An index from the end where it is negative, kept inside: no input may read elsewhere."""
    return f"nx_index({text}, {size})"


@kernel("Gather")
def Gather(layer: Layer) -> Code:
    """Slices of an axis; an index outside is brought inside."""
    x, indices = layer.input(0), layer.input(1)
    axis = layer.attrs.get("axis", 0) % len(x.shape)
    outer, size, inner = around(x.shape, axis)
    at = _index("x1[j]", size)
    line = f"y0[(i * {indices.size} + j) * {inner} + k] = x0[(i * {size} + g) * {inner} + k];"
    body = f"const long g = {at};\n" + nest(("k",), (inner,), line)
    return Code(nest(("i", "j"), (outer, indices.size), body))


def around(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """Elements before, along and behind an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


@kernel("GatherElements")
def GatherElements(layer: Layer) -> Code:
    """One index for each output element."""
    x, y = layer.input(0), layer.output()
    axis = layer.attrs.get("axis", 0) % len(x.shape)
    index = names(len(y.shape))
    flat = address(index, strides_of(y.shape))
    at = [_index(f"x1[{flat}]", x.shape[axis]) if n == axis else i for n, i in enumerate(index)]
    line = f"y0[{flat}] = x0[{address(at, strides_of(x.shape))}];"
    return Code(nest(index, y.shape, line))


@kernel("GatherND")
def GatherND(layer: Layer) -> Code:
    """The last axis of the indices is a position in the leading axes of x."""
    x, indices = layer.input(0), layer.input(1)
    batch = layer.attrs.get("batch_dims", 0)
    depth = indices.shape[-1]
    outer = prod(x.shape[:batch])
    each = prod(indices.shape[batch:-1])
    inner = prod(x.shape[batch + depth :])
    strides = strides_of(x.shape)
    at = address(
        [_index(f"x1[(b * {each} + j) * {depth} + {d}]", x.shape[batch + d]) for d in range(depth)],
        strides[batch : batch + depth],
    )
    span = prod(x.shape[batch:])
    body = f"const long g = b * {span} + {at};\n" + nest(
        ("k",), (inner,), f"y0[(b * {each} + j) * {inner} + k] = x0[g + k];"
    )
    return Code(nest(("b", "j"), (outer, each), body))


_UPDATES = {
    "none": "{y} = {v};",
    "add": "{y} += {v};",
    "mul": "{y} *= {v};",
    "max": "{y} = {y} > {v} ? {y} : {v};",
    "min": "{y} = {y} < {v} ? {y} : {v};",
}


def _update(layer: Layer, target: str, value: str) -> str:
    return _UPDATES[layer.attrs.get("reduction", "none")].format(y=target, v=value)


@kernel("ScatterElements", "Scatter")
def ScatterElements(layer: Layer) -> Code:
    """A copy of x with single elements replaced."""
    x, updates = layer.input(0), layer.input(2)
    axis = layer.attrs.get("axis", 0) % len(x.shape)
    index = names(len(updates.shape))
    flat = address(index, strides_of(updates.shape))
    at = [_index(f"x1[{flat}]", x.shape[axis]) if n == axis else i for n, i in enumerate(index)]
    target = f"y0[{address(at, strides_of(x.shape))}]"
    line = _update(layer, target, f"x2[{flat}]")
    return Code(f"memcpy(y0, x0, {x.nbytes});\n" + nest(index, updates.shape, line))


@kernel("ScatterND")
def ScatterND(layer: Layer) -> Code:
    """A copy of x with slices replaced."""
    x, indices = layer.input(0), layer.input(1)
    depth = indices.shape[-1]
    inner = prod(x.shape[depth:])
    at = address(
        [_index(f"x1[j * {depth} + {d}]", x.shape[d]) for d in range(depth)],
        strides_of(x.shape)[:depth],
    )
    line = _update(layer, "y0[g + k]", f"x2[j * {inner} + k]")
    body = f"const long g = {at};\n" + nest(("k",), (inner,), line)
    count = prod(indices.shape[:-1])
    return Code(f"memcpy(y0, x0, {x.nbytes});\n" + nest(("j",), (count,), body))


@kernel("OneHot")
def OneHot(layer: Layer) -> Code:
    """`values` are off and on; an index outside gives a row that is off."""
    y = layer.output()
    layer.constant(1)
    axis = layer.attrs.get("axis", -1) % len(y.shape)
    depth = y.shape[axis]
    inner = prod(y.shape[axis + 1 :])
    outer = prod(y.shape[:axis])
    at = f"(long)x0[i * {inner} + k]"
    line = (
        f"long g = {at};\ng += g < 0 ? {depth} : 0;\n"
        f"y0[(i * {depth} + j) * {inner} + k] = g == j ? x2[1] : x2[0];"
    )
    return Code(nest(("i", "j", "k"), (outer, depth, inner), line))


@kernel("CumSum")
def CumSum(layer: Layer) -> Code:
    """Running sums along a constant axis."""
    x, axis = layer.input(0), layer.constant(1)
    assert axis is not None
    outer, size, inner = around(x.shape, int(axis.reshape(())) % len(x.shape))
    place = f"{size - 1} - j" if layer.attrs.get("reverse", 0) else "j"
    at = f"(i * {size} + {place}) * {inner} + k"
    add, store = f"sum += x0[{at}];", f"y0[{at}] = sum;"
    lines = (store, add) if layer.attrs.get("exclusive", 0) else (add, store)
    body = f"{x.ctype} sum = 0;\n" + nest(("j",), (size,), "\n".join(lines))
    return Code(nest(("i", "k"), (outer, inner), body))


@kernel("ArgMax", "ArgMin")
def ArgMax(layer: Layer) -> Code:
    """The first (or last) place of the largest (or smallest) element."""
    x = layer.input(0)
    outer, size, inner = around(x.shape, layer.attrs.get("axis", 0) % len(x.shape))
    sign = ">" if layer.op == "ArgMax" else "<"
    sign += "=" if layer.attrs.get("select_last_index", 0) else ""
    at = f"x0[(i * {size} + j) * {inner} + k]"
    body = (
        f"long best = 0;\n{x.ctype} top = x0[i * {size * inner} + k];\n"
        + nest(("j",), (size,), f"if ({at} {sign} top) {{ top = {at}; best = j; }}")
        + f"\ny0[i * {inner} + k] = best;"
    )
    return Code(nest(("i", "k"), (outer, inner), body))


@kernel("TopK")
def TopK(layer: Layer) -> Code:
    """By insertion: k is small; equal elements keep their order."""
    x = layer.input(0)
    count = layer.constant(1)
    assert count is not None
    outer, size, inner = around(x.shape, layer.attrs.get("axis", -1) % len(x.shape))
    k = int(count.reshape(()))
    if not layer.has_output(0) or not layer.has_output(1):
        raise layer.refused("TopK needs both outputs")
    sign = ">" if layer.attrs.get("largest", 1) else "<"
    at = f"(i * {size} + j) * {inner} + c"

    def value(number: str) -> str:
        return f"y0[(i * {k} + {number}) * {inner} + c]"

    def place(number: str) -> str:
        return f"y1[(i * {k} + {number}) * {inner} + c]"

    body = (
        f"const {x.ctype} v = x0[{at}];\n"
        f"long p = j < {k} ? j : {k};\n"
        f"while (p > 0 && v {sign} {value('p - 1')}) {{\n"
        f"  if (p < {k}) {{ {value('p')} = {value('p - 1')}; {place('p')} = {place('p - 1')}; }}\n"
        f"  p--;\n}}\n"
        f"if (p < {k}) {{ {value('p')} = v; {place('p')} = j; }}"
    )
    return Code(nest(("i", "c", "j"), (outer, inner, size), body))


@kernel("Compress")
def Compress(layer: Layer) -> Code:
    """Refused unless the condition is constant: the shape would depend on data."""
    x, condition = layer.input(0), layer.constant(1)
    assert condition is not None
    import numpy as np

    kept = np.flatnonzero(condition).astype(np.int32)
    if "axis" not in layer.attrs:
        return Code(nest(("j",), (len(kept),), "y0[j] = x0[t0[j]];"), [kept])
    outer, size, inner = around(x.shape, layer.attrs["axis"] % len(x.shape))
    line = f"y0[(i * {len(kept)} + j) * {inner} + k] = x0[(i * {size} + t0[j]) * {inner} + k];"
    return Code(nest(("i", "j", "k"), (outer, len(kept), inner), line), [kept])


@kernel("ReverseSequence")
def ReverseSequence(layer: Layer) -> Code:
    """The first lengths[b] steps of each sample in reverse."""
    x = layer.input(0)
    time, batch = layer.attrs.get("time_axis", 0), layer.attrs.get("batch_axis", 1)
    index = names(len(x.shape))
    flat = address(index, strides_of(x.shape))
    at = list(index)
    at[time] = "t"
    body = (
        f"const long n = x1[{index[batch]}];\n"
        f"const long t = {index[time]} < n ? n - 1 - {index[time]} : {index[time]};\n"
        f"y0[{flat}] = x0[{address(at, strides_of(x.shape))}];"
    )
    return Code(nest(index, x.shape, body))


@kernel("Range")
def Range(layer: Layer) -> Code:
    """Refused: with run-time limits the shape depends on data."""
    raise layer.refused("its length depends on data")


@kernel("ConstantOfShape")
def ConstantOfShape(layer: Layer) -> Code:
    """One value everywhere; the shape is a constant."""
    y, value = layer.output(), layer.attrs.get("value")
    layer.constant(0)
    number = 0 if value is None else value.numpy().reshape(-1)[0]
    return Code(f"for (long i = 0; i < {y.size}; i++) y0[i] = {literal(number, y.ctype)};")


_INDEX = """static inline long nx_index(int64_t i, long size) {
  i += i < 0 ? size : 0;
  return i < 0 ? 0 : i < size ? (long)i : size - 1;
}"""


def helpers() -> dict[str, str]:
    """An index from the end where it is negative, brought inside."""
    return {"nx_index": _INDEX}
