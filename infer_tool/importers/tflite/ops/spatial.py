"""Resizing, and blocks of pixels that move to channels or to the batch."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.layout import TO_FIRST, TO_LAST
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call

_MODES = {"RESIZE_BILINEAR": "linear", "RESIZE_NEAREST_NEIGHBOR": "nearest"}


@op(*_MODES)
def resize(c: Call) -> None:
    """To the height and width of input 1."""
    mode = _MODES[c.operator.name]
    corners, centres = c.options.flag("align_corners"), c.options.flag("half_pixel")
    attributes = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if corners:
        attributes["coordinate_transformation_mode"] = "align_corners"
    elif centres:
        attributes["coordinate_transformation_mode"] = "half_pixel"
    if mode == "nearest":
        # floor((i + 1/2) scale) is what rounding (i + 1/2) scale - 1/2 upwards gives.
        attributes["nearest_mode"] = "round_prefer_ceil" if corners or centres else "floor"
    x = c.real(0, TO_FIRST[4])
    kept = c.emit("Shape", x, start=0, end=2)
    sizes = c.emit("Concat", kept, c.int64(1), axis=0)
    c.put(c.emit("Resize", x, None, None, sizes, **attributes), perm=TO_LAST[4])


@op("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def depth_and_space(c: Call) -> None:
    """Blocks of pixels from channels, or to channels."""
    block, x = c.options.integer("block"), c.real(0, TO_FIRST[4])
    if block < 1:
        raise ModelError(f"{c} has blocks of {block}")
    kind = "DepthToSpace" if c.operator.name == "DEPTH_TO_SPACE" else "SpaceToDepth"
    c.put(c.emit(kind, x, blocksize=block), perm=TO_LAST[4])


@op("SPACE_TO_BATCH_ND")
def space_to_batch(c: Call) -> None:
    """Every block-th pixel becomes an image of its own, after padding."""
    blocks, padding = _blocks(c), np.array(c.known(2)).reshape(-1, 2)
    count, rank = len(blocks), c.rank(c.stored(0))
    pads = np.zeros((rank, 2), np.int64)
    pads[1 : 1 + count] = padding
    zero = (c.zero_point(0),) if c.is_quantised() else ()

    def spread(x: ir.Value) -> ir.Value:
        x = c.emit("Pad", x, c.build.ints(*pads.T.reshape(-1)), *zero)
        sizes = _known_sizes(c, x)
        shape = [0]
        for size, block in zip(sizes, blocks, strict=False):
            if size % block:
                raise ModelError(f"{c} cuts {size} pixels into blocks of {block}")
            shape += [size // block, block]
        rest = sizes[count:]
        perm = [2 + 2 * i for i in range(count)] + [0] + [1 + 2 * i for i in range(count)]
        perm += range(1 + 2 * count, 1 + 2 * count + len(rest))
        x = c.permuted(c.emit("Reshape", x, c.build.ints(*shape, *rest)), perm)
        return c.emit("Reshape", x, c.build.ints(-1, *shape[1::2], *rest))

    c.bind(spread(c.stored(0)))


@op("BATCH_TO_SPACE_ND")
def batch_to_space(c: Call) -> None:
    """The inverse: images of the batch become every block-th pixel, then the edges are cut."""
    blocks, crops = _blocks(c), np.array(c.known(2)).reshape(-1, 2)
    count, x = len(blocks), c.stored(0)
    sizes = _known_sizes(c, x)
    rest = sizes[count:]
    x = c.emit("Reshape", x, c.build.ints(*blocks, -1, *sizes))
    perm = [count]
    for i in range(count):
        perm += [count + 1 + i, i]
    x = c.permuted(x, [*perm, *range(2 * count + 1, 2 * count + 1 + len(rest))])
    full = [size * block for size, block in zip(sizes, blocks, strict=False)]
    x = c.emit("Reshape", x, c.build.ints(-1, *full, *rest))
    ends = [size - int(after) for size, (_, after) in zip(full, crops, strict=True)]
    if crops.any():
        starts = c.build.ints(*(int(before) for before, _ in crops))
        x = c.emit("Slice", x, starts, c.build.ints(*ends), c.build.ints(*range(1, 1 + count)))
    c.bind(x)


def _blocks(c: Call) -> list[int]:
    blocks = c.known(1)
    if min(blocks, default=0) < 1 or len(blocks) >= c.rank(c.stored(0)) or prod(blocks) > 1 << 31:
        raise ModelError(f"{c} has blocks of {blocks}")
    return blocks


def _known_sizes(c: Call, x: ir.Value) -> list[int]:
    """Of all axes but the batch."""
    sizes = [size for size in c.sizes(x)[1:] if size is not None]
    if len(sizes) < c.rank(x) - 1:
        raise c.unsupported("the size of its images is not known")
    return sizes
