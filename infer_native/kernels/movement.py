"""Moving elements without changing them: copies with strides, filled borders, joined parts."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from infer_native.cwriter import address, collapse, literal, names, nest, strides_of
from infer_native.kernels import Code, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infer_native.program import Layer


def copy(
    shape: Sequence[int], source: Sequence[int], target: Sequence[int],
    base: int = 0, target_base: int = 0, x: str = "x0", y: str = "y0",
) -> str:  # fmt: skip
    """y[target] = x[source] over all indices of a shape."""
    if not prod(shape):
        return ""
    dims, (from_, to) = collapse(shape, [source, target])
    index = names(len(dims))
    line = f"{y}[{address(index, to, target_base)}] = {x}[{address(index, from_, base)}];"
    return nest(index, dims, line)


@kernel("_Copy")
def Copy(layer: Layer) -> Code:
    """The same bytes at another place."""
    return Code(f"memcpy(y0, x0, {layer.output().nbytes});")


@kernel("Transpose")
def Transpose(layer: Layer) -> Code:
    """Axes in another order; by default reversed."""
    x, y = layer.input(0), layer.output()
    order = layer.attrs.get("perm") or list(range(len(x.shape)))[::-1]
    strides = strides_of(x.shape)
    return Code(copy(y.shape, [strides[a] for a in order], strides_of(y.shape)))


@kernel("Slice")
def Slice(layer: Layer) -> Code:
    """Starts, ends, axes and steps are constants."""
    x, y = layer.input(0), layer.output()
    starts, axes, steps = (layer.constant(i) for i in (1, 3, 4))
    assert starts is not None
    over = range(len(starts)) if axes is None else [int(a) % len(x.shape) for a in axes]
    strides = strides_of(x.shape)
    base, walk = 0, list(strides)
    for number, axis in enumerate(over):
        step = 1 if steps is None else int(steps[number])
        size, start = x.shape[axis], int(starts[number])
        start += size if start < 0 else 0
        start = min(max(start, 0), size if step > 0 else size - 1)
        base += start * strides[axis]
        walk[axis] = step * strides[axis]
    return Code(copy(y.shape, walk, strides_of(y.shape), base))


@kernel("Expand", "Tile")
def Expand(layer: Layer) -> Code:
    """Repeated along axes; Tile repeats whole lengths, an axis of its own in front of each."""
    x, y = layer.input(0), layer.output()
    layer.constant(1)
    padded = [1] * (len(y.shape) - len(x.shape)) + list(x.shape)
    shape, source = [], []
    for size, length, step in zip(y.shape, padded, strides_of(padded), strict=True):
        shape += [size // length if length else 0, length]
        source += [0, step]
    return Code(copy(shape, source, strides_of(shape)))


@kernel("Concat")
def Concat(layer: Layer) -> Code:
    """Every input into its own part of the output."""
    y = layer.output()
    axis = layer.attrs["axis"] % len(y.shape)
    strides, at, parts = strides_of(y.shape), 0, []
    for number, tensor in enumerate(layer.inputs):
        assert tensor is not None
        source = strides_of(tensor.shape)
        parts.append(copy(tensor.shape, source, strides, 0, at * strides[axis], f"x{number}"))
        at += tensor.shape[axis]
    return Code("\n".join(p for p in parts if p))


@kernel("Split")
def Split(layer: Layer) -> Code:
    """Every output from its own part of the input."""
    x = layer.input(0)
    axis = layer.attrs.get("axis", 0) % len(x.shape)
    strides, at, parts = strides_of(x.shape), 0, []
    sizes = layer.constant(1)
    for number, tensor in enumerate(layer.outputs):
        if tensor is not None:
            target = strides_of(tensor.shape)
            base = at * strides[axis]
            parts.append(copy(tensor.shape, strides, target, base, 0, "x0", f"y{number}"))
        at += _part(layer, number, sizes, x.shape[axis])
    return Code("\n".join(p for p in parts if p))


def _part(layer: Layer, number: int, sizes: object, length: int) -> int:
    if sizes is not None:
        return int(sizes[number])  # type: ignore[index]
    count = layer.attrs.get("num_outputs") or len(layer.outputs)
    return -(-length // count)


@kernel("DepthToSpace")
def DepthToSpace(layer: Layer) -> Code:
    """Blocks of channels become squares of pixels (DCR or CRD order)."""
    (n, c, h, w), b = layer.input(0).shape, layer.attrs["blocksize"]
    inner = c // (b * b)
    if layer.attrs.get("mode", "DCR") == "DCR":
        split, order = [n, b, b, inner, h, w], (0, 3, 4, 1, 5, 2)
    else:
        split, order = [n, inner, b, b, h, w], (0, 1, 4, 2, 5, 3)
    return _permuted(split, order)


@kernel("SpaceToDepth")
def SpaceToDepth(layer: Layer) -> Code:
    """Squares of pixels become blocks of channels."""
    (n, c, h, w), b = layer.input(0).shape, layer.attrs["blocksize"]
    order = (0, 3, 5, 1, 2, 4) if layer.attrs.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return _permuted([n, c, h // b, b, w // b, b], order)


def _permuted(split: Sequence[int], order: Sequence[int]) -> Code:
    shape, strides = [split[a] for a in order], strides_of(split)
    return Code(copy(shape, [strides[a] for a in order], strides_of(shape)))


@kernel("Pad")
def Pad(layer: Layer) -> Code:
    """Constant borders are filled first; reflect, edge and wrap go by a table per axis."""
    x, y = layer.input(0), layer.output()
    begins = pad_begins(layer)
    mode = layer.attrs.get("mode", "constant")
    if mode != "constant":
        return _padded_by_tables(layer, begins, mode)
    value = layer.constant(2)
    fill = literal(0 if value is None else value.reshape(()), y.ctype)
    text = f"for (long i = 0; i < {y.size}; i++) y0[i] = {fill};\n"
    source, target = strides_of(x.shape), strides_of(y.shape)
    first = [max(-b, 0) for b in begins]
    last = [min(n, m - b) for n, m, b in zip(x.shape, y.shape, begins, strict=True)]
    shape = [max(e - s, 0) for s, e in zip(first, last, strict=True)]
    base = sum(s * step for s, step in zip(first, source, strict=True))
    places = [max(b, 0) for b in begins]
    to = sum(p * step for p, step in zip(places, target, strict=True))
    return Code(text + copy(shape, source, target, base, to))


def pad_begins(layer: Layer) -> list[int]:
    """What a Pad adds in front of each axis; negative where it cuts."""
    x, pads, axes = layer.input(0), layer.constant(1), layer.constant(3)
    assert pads is not None
    over = range(len(x.shape)) if axes is None else [int(a) % len(x.shape) for a in axes]
    begins = [0] * len(x.shape)
    for number, axis in enumerate(over):
        begins[axis] = int(pads[number])
    return begins


def _padded_by_tables(layer: Layer, begins: Sequence[int], mode: str) -> Code:
    import numpy as np

    x, y = layer.input(0), layer.output()
    modes = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    tables = []
    for size, out, begin in zip(x.shape, y.shape, begins, strict=True):
        cut = np.arange(size)[max(-begin, 0) : size + min(out - begin - size, 0)]
        ends = (max(begin, 0), max(out - begin - size, 0))
        tables.append(np.pad(cut, ends, mode=modes[mode]).astype(np.int32))  # type: ignore[call-overload]
    return by_tables(x.shape, y.shape, tables)


def by_tables(source: Sequence[int], shape: Sequence[int], tables: Sequence[object]) -> Code:
    """y[i, j, ...] = x[t0[i], t1[j], ...]."""
    index = names(len(shape))
    at = address([f"t{n}[{i}]" for n, i in enumerate(index)], strides_of(source))
    line = f"y0[{address(index, strides_of(shape))}] = x0[{at}];"
    return Code(nest(index, shape, line), list(tables))  # type: ignore[arg-type]


@kernel("Trilu")
def Trilu(layer: Layer) -> Code:
    """The upper or lower triangle, zero elsewhere."""
    y = layer.output()
    k = layer.constant(1)
    shift = 0 if k is None else int(k.reshape(()))
    rows, columns = y.shape[-2:]
    sign = ">=" if layer.attrs.get("upper", 1) else "<="
    at = f"i * {rows * columns} + r * {columns} + c"
    line = f"y0[{at}] = c - r {sign} {shift} ? x0[{at}] : 0;"
    return Code(nest(("i", "r", "c"), (y.size // max(rows * columns, 1), rows, columns), line))


@kernel("EyeLike")
def EyeLike(layer: Layer) -> Code:
    """Ones on a diagonal; only the shape of the input matters."""
    rows, columns = layer.output().shape
    k = layer.attrs.get("k", 0)
    line = f"y0[r * {columns} + c] = c - r == {k};"
    return Code(nest(("r", "c"), (rows, columns), line))
