"""Shapes and layout: what moves data without computing with it."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from infer_runtime.arrays import (
    Array,
    check_room,
    integer_like,
    ints,
    is_numpy,
    moved_axis,
    namespace,
    number,
    positive_axes,
    scalar,
)  # fmt: skip
from infer_runtime.registry import op

if TYPE_CHECKING:
    from collections.abc import Sequence


@op("Constant")
def Constant(
    *,
    value: Array | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
    value_string: str | None = None,
    value_strings: Sequence[str] | None = None,
) -> Array:
    """The one attribute that is given, as an array."""
    if value is not None:
        return value
    for given, dtype in (
        (value_float, np.float32), (value_floats, np.float32), (value_int, np.int64),
        (value_ints, np.int64), (value_string, object), (value_strings, object),
    ):  # fmt: skip
        if given is not None:
            return np.array(given, dtype)
    raise ValueError("a Constant without a value")


@op("ConstantOfShape", since=9)
def ConstantOfShape(shape: Array, *, value: Array | None = None) -> Array:
    """An array of one value (default: float32 zero)."""
    fill = np.zeros(1, np.float32) if value is None else value
    check_room(ints(shape), fill.itemsize)
    return np.full(ints(shape), fill.reshape(-1)[0], fill.dtype)


@op("Shape", library="any")
def Shape(data: Array, *, start: int = 0, end: int | None = None) -> Array:
    """The dimensions from start to end."""
    return integer_like(data.shape[start:end], data)


@op("Size", library="any")
def Size(data: Array) -> Array:
    """The number of elements."""
    return integer_like(math.prod(data.shape), data)


@op("Reshape", since=5, library="any")
def Reshape(data: Array, shape: Array, *, allowzero: int = 0) -> Array:
    """A zero in `shape` keeps the dimension, unless allowzero; -1 takes what is left."""
    target = ints(shape)
    if not allowzero:
        target = tuple(data.shape[i] if n == 0 else n for i, n in enumerate(target))
    return data.reshape(target)


@op("Transpose", library="any")
def Transpose(data: Array, *, perm: Sequence[int] | None = None) -> Array:
    """Axes in the order `perm`, reversed without it."""
    order = tuple(perm) if perm else tuple(range(data.ndim))[::-1]
    return data.transpose(order) if is_numpy(data) else namespace(data).permute_dims(data, order)


@op("Flatten", library="any")
def Flatten(data: Array, *, axis: int = 1) -> Array:
    """A matrix: the axes before `axis`, and the rest."""
    axis = axis + data.ndim if axis < 0 else axis
    return data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))


@op("Squeeze", since=13, library="any")
def Squeeze(data: Array, axes: Array | None = None) -> Array:
    """Without the given axes of length one, or all of them."""
    if axes is None:
        over = tuple(i for i, n in enumerate(data.shape) if n == 1)
    else:
        over = positive_axes(ints(axes), data.ndim)
    return namespace(data).squeeze(data, axis=over)


@op("Squeeze", library="any")
def Squeeze_1(data: Array, *, axes: Sequence[int] | None = None) -> Array:
    """Before opset 13 the axes are an attribute."""
    return Squeeze(data, None if axes is None else np.array(axes))


@op("Unsqueeze", since=13, library="any")
def Unsqueeze(data: Array, axes: Array) -> Array:
    """With new axes of length one at these places of the result."""
    return _with_axes(data, ints(axes))


@op("Unsqueeze", library="any")
def Unsqueeze_1(data: Array, *, axes: Sequence[int]) -> Array:
    """Before opset 13 the axes are an attribute."""
    return _with_axes(data, tuple(axes))


def _with_axes(data: Array, axes: tuple[int, ...]) -> Array:
    rank = data.ndim + len(axes)
    places = positive_axes(axes, rank)
    if len({*places}) != len(places):
        raise ValueError(f"axes {list(axes)} name one twice")
    kept = iter(data.shape)
    return data.reshape([1 if i in places else next(kept) for i in range(rank)])


@op("Concat", since=4, library="any")
def Concat(*inputs: Array, axis: int) -> Array:
    """The inputs one after the other along the axis."""
    return namespace(*inputs).concat(inputs, axis=axis)


@op("Split", since=13, library="any")
def Split(
    data: Array,
    split: Array | None = None,
    *,
    axis: int = 0,
    num_outputs: int | None = None,
    n_outputs: int = 1,
) -> tuple[Array, ...]:
    """Parts of the given lengths, or equal parts of which the last may be shorter."""
    (axis,) = positive_axes([axis], data.ndim)
    length = data.shape[axis]
    if split is not None:
        parts = ints(split)
    else:
        count = num_outputs or n_outputs
        part = -(-length // count)
        parts = tuple(min(part, length - i * part) for i in range(count))
    if sum(parts) != length or min(parts, default=0) < 0:
        raise ValueError(f"parts of {list(parts)} do not add up to axis {axis} of length {length}")
    ends = list(accumulate(parts))
    before = (slice(None),) * axis
    return tuple(
        data[(*before, slice(end - part, end))] for end, part in zip(ends, parts, strict=True)
    )


@op("Split", since=2, library="any")
def Split_2(
    data: Array, *, axis: int = 0, split: Sequence[int] | None = None, n_outputs: int = 1
) -> tuple[Array, ...]:
    """Before opset 13 the lengths are an attribute."""
    given = None if split is None else np.array(split)
    return Split(data, given, axis=axis, n_outputs=n_outputs)


@op("Slice", since=10, library="any")
def Slice(
    data: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    """A sub-array; starts and ends beyond an axis are clamped as in Python."""
    first, last = ints(starts), ints(ends)
    over = range(len(first)) if axes is None else positive_axes(ints(axes), data.ndim)
    by = [1] * len(first) if steps is None else ints(steps)
    index: list[slice] = [slice(None)] * data.ndim
    backward = []
    for a, b, axis, step in zip(first, last, over, by, strict=True):
        # A backward slice that ends before index 0 has no non-negative end.
        beyond = step < 0 and b < -data.shape[axis]
        index[axis] = slice(a, None if beyond else b, step)
        if step < 0:
            backward.append(axis)
    if is_numpy(data) or not backward:
        return data[tuple(index)]
    return _backward_slice(data, index)


def _backward_slice(data: Array, index: list[slice]) -> Array:
    """torch knows no negative steps: the places are counted out."""
    for axis, part in enumerate(index):
        places = range(*part.indices(data.shape[axis]))
        data = namespace(data).take(data, integer_like(places, data), axis=axis)
    return data


@op("Slice", library="any")
def Slice_1(
    data: Array, *, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None = None
) -> Array:
    """Before opset 10 all is attributes, and steps are one."""
    over = None if axes is None else np.array(axes)
    return Slice(data, np.array(starts), np.array(ends), over)


@op("Expand", since=8, library="any")
def Expand(data: Array, shape: Array) -> Array:
    """Broadcast to the shape, in both directions."""
    target = np.broadcast_shapes(tuple(data.shape), ints(shape))
    check_room(target, data.dtype.itemsize)
    return namespace(data).broadcast_to(data, target)


@op("Tile", since=6, library="any")
def Tile(data: Array, repeats: Array) -> Array:
    """Each axis repeated as a whole."""
    check_room((*data.shape, *ints(repeats)), data.dtype.itemsize)
    return namespace(data).tile(data, ints(repeats))


@op("Pad", since=11, library="any")
def Pad(
    data: Array,
    pads: Array,
    constant_value: Array | None = None,
    axes: Array | None = None,
    *,
    mode: str = "constant",
) -> Array:
    """Begins of all axes, then ends; negative amounts crop, before the padding."""
    over = range(data.ndim) if axes is None else positive_axes(ints(axes), data.ndim)
    amounts = ints(pads)
    pairs = [(0, 0)] * data.ndim
    for i, axis in enumerate(over):
        pairs[axis] = (amounts[i], amounts[i + len(over)])
    cropped = data[
        tuple(slice(max(0, -b), n + min(0, e)) for (b, e), n in zip(pairs, data.shape, strict=True))
    ]
    pairs = [(max(0, b), max(0, e)) for b, e in pairs]
    target = [n + b + e for n, (b, e) in zip(cropped.shape, pairs, strict=True)]
    check_room(target, data.dtype.itemsize)
    if is_numpy(data):
        return _padded(cropped, pairs, mode, constant_value)
    for axis, pair in enumerate(pairs):
        cropped = _padded_axis(cropped, axis, pair, mode, constant_value)
    return cropped


def _padded(
    data: Array, pairs: list[tuple[int, int]], mode: str, constant_value: Array | None
) -> Array:
    if mode != "constant":
        for axis, pair in enumerate(pairs):
            if any(pair):
                data = data.take(_places(data.shape[axis], pair, mode), axis=axis)
        return data
    value = number(0, data) if constant_value is None else constant_value.reshape(-1)[0]
    shape = [n + b + e for n, (b, e) in zip(data.shape, pairs, strict=True)]
    padded = np.full(shape, value, data.dtype)
    padded[tuple(slice(b, b + n) for n, (b, _) in zip(data.shape, pairs, strict=True))] = data
    return padded


def _padded_axis(
    data: Array, axis: int, pair: tuple[int, int], mode: str, constant_value: Array | None
) -> Array:
    """One axis, by gathering: works, with gradients, for every mode."""
    if pair == (0, 0):
        return data
    xp, size = namespace(data), data.shape[axis]
    if mode == "constant":
        value = number(0, data) if constant_value is None else constant_value.reshape(-1)[0]
        ends = [[n if i == axis else d for i, d in enumerate(data.shape)] for n in pair]
        before, after = (xp.broadcast_to(value, end) for end in ends)
        return xp.concat([before, data, after], axis=axis)
    return xp.take(data, integer_like(_places(size, pair, mode), data), axis=axis)


@lru_cache(maxsize=256)
def _places(size: int, pair: tuple[int, int], mode: str) -> Array:
    """Where along an axis the values of a padded one come from."""
    places: Array = np.pad(np.arange(size), pair, mode=mode)  # type: ignore[call-overload]
    return places


@op("Pad", since=2, library="any")
def Pad_2(data: Array, *, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Array:
    """Before opset 11 amounts and value are attributes."""
    return Pad(data, np.array(pads), namespace(data).asarray(value, dtype=data.dtype), mode=mode)


@op("Range", since=11)
def Range(start: Array, limit: Array, delta: Array) -> Array:
    """start + i * delta, one multiplication for each element as the specification has it."""
    wide = np.float64 if start.dtype.kind not in "iu" else np.int64
    a, b, d = (v.astype(wide).reshape(()) for v in (start, limit, delta))
    count = max(0, math.ceil((b - a) / d))
    check_room([count], 8)
    return (a + np.arange(count) * d).astype(start.dtype)


@op("EyeLike", since=9)
def EyeLike(data: Array, *, dtype: int | None = None, k: int = 0) -> Array:
    """Ones on the k-th diagonal of a matrix of the shape of the input."""
    kind = data.dtype if dtype is None else ir.DataType(dtype).numpy()
    rows, columns = data.shape
    return np.eye(rows, columns, k=k).astype(kind)


@op("Trilu", since=14, library="any")
def Trilu(data: Array, k: Array | None = None, *, upper: int = 1) -> Array:
    """The upper or lower triangle, zeros elsewhere."""
    diagonal = 0 if k is None else scalar(k)
    xp = namespace(data)
    return xp.triu(data, k=diagonal) if upper else xp.tril(data, k=diagonal)


@op("DepthToSpace", library="any")
def DepthToSpace(data: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Blocks of channels become blocks of pixels."""
    n, c, h, w = data.shape
    b, depth = blocksize, c // blocksize**2
    if mode == "DCR":
        y = data.reshape(n, b, b, depth, h, w)
        order = (0, 3, 4, 1, 5, 2)
    else:
        y = data.reshape(n, depth, b, b, h, w)
        order = (0, 1, 4, 2, 5, 3)
    return Transpose(y, perm=order).reshape(n, depth, h * b, w * b)


@op("SpaceToDepth", library="any")
def SpaceToDepth(data: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    """Blocks of pixels become channels."""
    n, c, h, w = data.shape
    b = blocksize
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    y = Transpose(data.reshape(n, c, h // b, b, w // b, b), perm=order)
    return y.reshape(n, c * b * b, h // b, w // b)


@op("Dropout", since=12, library="any")
def Dropout(
    data: Array,
    ratio: Array | None = None,
    training_mode: Array | None = None,
    *,
    seed: int | None = None,
) -> tuple[Array, Array]:
    """The identity: a runtime for inference refuses to drop at random."""
    del seed
    if training_mode is not None and scalar(training_mode) and (ratio is None or scalar(ratio) > 0):
        raise ValueError("Dropout in training mode is random; set training_mode to false")
    xp = namespace(data)
    return data, xp.ones(data.shape, dtype=xp.bool)


@op("Dropout", since=7, library="any")
def Dropout_7(data: Array, *, ratio: float = 0.5) -> tuple[Array, Array]:
    """The identity, and a mask of ones."""
    del ratio
    xp = namespace(data)
    return data, xp.ones(data.shape, dtype=xp.bool)


@op("ReverseSequence", since=10, library="any")
def ReverseSequence(
    data: Array, sequence_lens: Array, *, batch_axis: int = 1, time_axis: int = 0
) -> Array:
    """The first sequence_lens[i] steps of sample i in reverse order."""
    xp = namespace(data)
    ordered = moved_axis(data, batch_axis, 0)
    along = time_axis if time_axis > batch_axis else time_axis + 1
    ordered = moved_axis(ordered, along, 1)
    rows = [
        xp.concat([xp.flip(ordered[i, :length], axis=0), ordered[i, length:]], axis=0)
        for i, length in enumerate(ints(sequence_lens))
    ]
    y = moved_axis(xp.stack(rows), 1, along)
    return moved_axis(y, 0, batch_axis)
