"""Resize: each axis by a table of places and weights that the reference runtime computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_native.cwriter import address, names, nest, strides_of
from infer_native.kernels import Code, kernel
from infer_native.kernels.movement import by_tables
from infer_runtime.ops import resize as reference

if TYPE_CHECKING:
    from infer_native.program import Array, Layer

_OPTIONS = (
    "antialias", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside",
    "keep_aspect_ratio_policy", "nearest_mode", "mode",
)  # fmt: skip


@kernel("Resize")
def Resize(layer: Layer) -> Code:
    """Nearest is a gather by tables, the others sum a few taps along each axis."""
    x, y, attrs = layer.input(0), layer.output(), layer.attrs
    if not x.is_float and attrs.get("mode", "nearest") != "nearest":
        raise layer.refused("only nearest has a kernel for integers")
    if attrs.get("mode", "nearest") == "nearest":
        return by_tables(x.shape, y.shape, nearest(layer))
    return _weighted(layer, _matrices(layer))


def nearest(layer: Layer) -> list[Array]:
    """For each axis the place in the input of every place in the output."""
    return [m.argmax(axis=1).astype(np.int32) for m in _matrices(layer)]


def nearest_pixels(layer: Layer, tables: list[Array]) -> Code:
    """The same on a blocked image, a pixel of all lanes at a time."""
    x, y = layer.input(0), layer.output()
    (_, _, height, width, lanes), (samples, blocks, rows, out, _) = x.shape, y.shape
    size = lanes * x.dtype.itemsize
    line = (
        f"memcpy(y0 + ((c * {rows} + r) * {out} + i) * {lanes}, "
        f"x0 + ((c * {height} + t0[r]) * {width} + t1[i]) * {lanes}, {size});"
    )
    return Code(nest(("c", "r", "i"), (samples * blocks, rows, out), line), tables[2:])


def _matrices(layer: Layer) -> list[Array]:
    if layer.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise layer.refused("tf_crop_and_resize has no kernel")
    return [_matrix(layer, axis) for axis in range(len(layer.input(0).shape))]


def _matrix(layer: Layer, axis: int) -> Array:
    """[out, in]: what an axis does, seen by resizing each unit vector of it."""
    x, y, attrs = layer.input(0), layer.output(), layer.attrs
    options = {k: attrs[k] for k in _OPTIONS if k in attrs}
    over = [a % len(x.shape) for a in attrs.get("axes") or range(len(x.shape))]
    if axis not in over:
        return np.eye(x.shape[axis])
    place = over.index(axis)
    scales, sizes = layer.constant(2), layer.constant(3)
    unit = np.eye(x.shape[axis])
    if sizes is not None and sizes.size:
        policy = options.pop("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = min if policy == "not_larger" else max
            factor = scale(float(sizes[i]) / x.shape[a] for i, a in enumerate(over))
            found = reference.Resize(unit, None, np.array([1, factor]), None, **options)
            return _checked(layer, found.T, y.shape[axis])
        target = np.array([x.shape[axis], sizes[place]])
        return _checked(
            layer, reference.Resize(unit, None, None, target, **options).T, y.shape[axis]
        )
    assert scales is not None
    pair = np.array([1, scales[place]], np.float32)
    return _checked(layer, reference.Resize(unit, None, pair, None, **options).T, y.shape[axis])


def _checked(layer: Layer, matrix: Array, wanted: int) -> Array:
    if matrix.shape[0] != wanted:
        raise layer.refused(f"an axis becomes {matrix.shape[0]} long, not {wanted}")
    return matrix


def _weighted(layer: Layer, matrices: list[Array]) -> Code:
    """Taps of all axes inside each other; axes that stay have one tap of weight 1."""
    x, y = layer.input(0), layer.output()
    index, at, weight, taps = names(len(x.shape)), [], [], []
    tables: list[Array] = []
    for axis, matrix in enumerate(matrices):
        if matrix.shape[0] == matrix.shape[1] and (matrix == np.eye(len(matrix))).all():
            at.append(index[axis])
            continue
        count = max(1, int((matrix != 0).sum(axis=1).max()))
        order = np.sort(np.argsort(matrix == 0, axis=1, kind="stable")[:, :count], axis=1)
        place = f"{index[axis]} * {count} + k{axis}"
        at.append(f"t{len(tables)}[{place}]")
        weight.append(f"t{len(tables) + 1}[{place}]")
        tables += [order.astype(np.int32), np.take_along_axis(matrix, order, 1).astype(x.dtype)]
        taps.append((f"k{axis}", count))
    product = " * ".join(weight) or "1"
    add = f"sum += {product} * x0[{address(at, strides_of(x.shape))}];"
    inner = nest([t[0] for t in taps], [t[1] for t in taps], add)
    body = f"{x.ctype} sum = 0;\n{inner}\ny0[{address(index, strides_of(y.shape))}] = sum;"
    return Code(nest(index, y.shape, body), tables)
