"""Operators that join, repeat, permute and gather elements, and compute nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from infer_runtime.errors import ModelError
from infer_tool.importers.tflite.registry import op

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_tool.importers.tflite.call import Call

_REFLECT, _SYMMETRIC = 0, 1


@op("TRANSPOSE")
def transpose(c: Call) -> None:
    """The axes in another order."""
    perm = c.known(1)
    if sorted(perm) != list(range(c.rank(c.stored(0)))):
        raise ModelError(f"{c} has the permutation {perm}")
    c.move(lambda x: c.permuted(x, perm))


@op("CONCATENATION")
def concatenation(c: Call) -> None:
    """Along an axis; the inputs of uint8 may have scales of their own."""
    axis, slots = c.options.integer("axis"), range(c.inputs)
    if c.options.integer("activation"):
        joined = c.emit("Concat", *(c.real(slot) for slot in slots), axis=axis)
        c.put(c.activated(joined))
    else:
        c.move(lambda *values: c.emit("Concat", *values, axis=axis), slots)


@op("PACK")
def pack(c: Call) -> None:
    """Along a new axis."""
    axis = c.options.integer("axis")
    place = c.build.ints(axis)
    c.move(
        lambda *values: c.emit(
            "Concat", *(c.emit("Unsqueeze", v, place) for v in values), axis=axis
        ),
        range(c.inputs),
    )


@op("UNPACK")
def unpack(c: Call) -> None:
    """One output for each element of an axis."""
    axis = c.axis(c.stored(0), c.options.integer("axis"))
    c.move_to_all(
        lambda x: [c.emit("Gather", x, c.build.constant(i), axis=axis) for i in range(c.outputs)],
        0,
    )


@op("SPLIT")
def split(c: Call) -> None:
    """Equal parts; input 0 is the axis."""
    (axis,) = c.known(0)
    axis = c.axis(c.stored(1), axis)
    c.move_to_all(
        lambda x: c.build.node("Split", [x], c.outputs, axis=axis, num_outputs=c.outputs), 1
    )


@op("SPLIT_V")
def split_v(c: Call) -> None:
    """Parts of these sizes, one of which may be -1; input 2 is the axis."""
    sizes, (axis,) = c.known(1), c.known(2)
    axis = c.axis(c.stored(0), axis)
    total = c.sizes(c.stored(0))[axis]
    if -1 in sizes and total is None:
        raise c.unsupported("the size of its axis is not known")
    rest = (total or 0) - sum(s for s in sizes if s >= 0)
    parts = c.build.ints(*(rest if s == -1 else s for s in sizes))
    if len(sizes) != c.outputs:
        raise ModelError(f"{c} has {len(sizes)} sizes for {c.outputs} outputs")
    c.move_to_all(lambda x: c.build.node("Split", [x, parts], c.outputs, axis=axis), 0)


@op("PAD", "PADV2")
def pad(c: Call) -> None:
    """With zeros, or with the value of input 2."""
    pads = _pads(c)

    def padded(x: ir.Value, value: ir.Value | None = None) -> ir.Value:
        if value is not None:
            value = c.emit("Reshape", value, c.build.constant(np.zeros(0, np.int64)))
        elif x is c.stored(0) and c.is_quantised():
            value = c.zero_point(0)
        return c.emit("Pad", x, pads, value)

    c.move(padded, (0, 2) if c.has(2) else (0,))


def _pads(c: Call) -> ir.Value:
    """From [rank, before and after] to all before, then all after."""
    return c.flat(c.permuted(c.int64(1), (1, 0)))


@op("MIRROR_PAD")
def mirror_pad(c: Call) -> None:
    """REFLECT leaves the edge out, SYMMETRIC repeats it."""
    if c.options.integer("mode") == _REFLECT:
        c.move(lambda x: c.emit("Pad", x, _pads(c), mode="reflect"))
        return
    pairs = np.array(c.known(1)).reshape(-1, 2)
    sizes = c.sizes(c.stored(0))

    def mirrored(x: ir.Value) -> ir.Value:
        for axis, (before, after) in enumerate(pairs):
            size = sizes[axis]
            if not (before or after):
                continue
            if size is None or max(before, after) > size or min(before, after) < 0:
                raise c.unsupported(f"padding {before}, {after} of an axis of {size}")
            order = np.pad(np.arange(size), (before, after), mode="symmetric")
            x = c.emit("Gather", x, c.build.constant(order), axis=axis)
        return x

    c.move(mirrored)


@op("TILE")
def tile(c: Call) -> None:
    """Repeated along each axis."""
    repeats = c.int64(1)
    c.move(lambda x: c.emit("Tile", x, repeats))


@op("BROADCAST_TO")
def broadcast_to(c: Call) -> None:
    """Repeated along axes of one element."""
    shape = c.int64(1)
    c.move(lambda x: c.emit("Expand", x, shape))


@op("BROADCAST_ARGS")
def broadcast_args(c: Call) -> None:
    """The shape that two shapes are broadcast to."""
    shapes = [c.int64(0), c.int64(1)]
    lengths = [c.sizes(shape)[0] for shape in shapes]
    if None in lengths:
        raise c.unsupported("the length of its shapes is not known")
    longest = max(length or 0 for length in lengths)
    wide = [
        c.emit("Concat", c.build.ints(*[1] * (longest - (n or 0))), s, axis=0)
        for n, s in zip(lengths, shapes, strict=True)
    ]
    c.bind(c.cast(c.emit("Max", *wide), c.result().type))


@op("REVERSE_V2")
def reverse(c: Call) -> None:
    """Backwards along these axes."""
    last = int(np.iinfo(np.int64).max)
    axes = c.build.ints(*(c.axis(c.stored(0), axis) for axis in c.known(1)))
    count = len(c.known(1))
    start, end, step = (c.build.ints(*[v] * count) for v in (last, -last, -1))
    c.move(lambda x: c.emit("Slice", x, start, end, axes, step))


@op("REVERSE_SEQUENCE")
def reverse_sequence(c: Call) -> None:
    """The first elements of each sequence backwards, their number being input 1."""
    time, batch = c.options.integer("sequence_axis"), c.options.integer("batch_axis")
    if {time, batch} != {0, 1}:
        raise c.unsupported(f"sequences along axis {time} of batches along {batch}")
    lengths = c.int64(1)
    c.move(lambda x: c.emit("ReverseSequence", x, lengths, time_axis=time, batch_axis=batch))


@op("GATHER")
def gather(c: Call) -> None:
    """Slices of an axis; the first `batch_dims` axes of both inputs go together."""
    x, indices = c.stored(0), c.stored(1)
    axis, batch = c.axis(x, c.options.integer("axis")), c.options.integer("batch_dims")
    if not batch:
        c.move(lambda x: c.emit("Gather", x, indices, axis=axis))
        return
    batch = batch % max(c.rank(indices), 1)
    if axis < batch:
        raise ModelError(f"{c} gathers along axis {axis} of {batch} batch axes")
    c.move(lambda x: _gather_in_batches(c, x, axis, batch))


def _gather_in_batches(c: Call, x: ir.Value, axis: int, batch: int) -> ir.Value:
    """GatherND takes the axis after the batch; the axes between go in front of the indices."""
    rank, between = c.rank(x), axis - batch
    order = [*range(batch), axis, *(i for i in range(batch, rank) if i != axis)]
    last = c.emit("Unsqueeze", c.int64(1), c.build.ints(-1))
    found = c.emit("GatherND", c.permuted(x, order), last, batch_dims=batch)
    count = c.rank(c.stored(1)) - batch
    middle = range(batch + count, batch + count + between)
    indices = range(batch, batch + count)
    rest = range(batch + count + between, c.rank(found))
    perm = [*range(batch), *middle, *indices, *rest]
    return c.permuted(found, perm) if between else found


@op("GATHER_ND")
def gather_nd(c: Call) -> None:
    """Each row of the indices is a place."""
    indices = c.int64(1)
    c.move(lambda x: c.emit("GatherND", x, indices))


@op("SCATTER_ND")
def scatter_nd(c: Call) -> None:
    """Inputs: places, values, shape; values of one place are added."""
    dtype = c.stored(1).dtype
    assert dtype is not None
    zero = c.build.tensor(np.zeros(1, dtype.numpy()))
    empty = c.emit("ConstantOfShape", c.int64(2), value=zero)
    c.bind(c.emit("ScatterND", empty, c.int64(0), c.stored(1), reduction="add"))


@op("SPARSE_TO_DENSE")
def sparse_to_dense(c: Call) -> None:
    """Inputs: places, shape, values, the value everywhere else."""
    everywhere = c.emit("Expand", c.stored(3), c.int64(1))
    places, values = c.int64(0), c.stored(2)
    if c.rank(places) == 0:
        places = c.flat(places)
    if c.rank(places) == 1:
        places = c.emit("Unsqueeze", places, c.build.ints(-1))
    if c.rank(values) == 0:
        count = c.emit("Shape", places, start=0, end=1)
        values = c.emit("Expand", values, count)
    c.bind(c.emit("ScatterND", everywhere, places, values))


@op("EMBEDDING_LOOKUP")
def embedding_lookup(c: Call) -> None:
    """Rows of input 1, chosen by input 0."""
    if c.is_quantised(1) and c.result().quantisation is None:
        c.put(c.emit("Gather", c.real(1), c.stored(0), axis=0))
    else:
        c.move(lambda x: c.emit("Gather", x, c.stored(0), axis=0), (1,))


@op("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(c: Call) -> None:
    """Part of input 0 is replaced by input 1; it starts where all of it fits."""
    x, update = c.stored(0), c.stored(1)
    sizes, part = c.emit("Shape", x), c.emit("Shape", update)
    room = c.emit("Sub", sizes, part)
    start = c.emit("Min", c.emit("Max", c.int64(2), c.build.ints(0)), room)
    pads = c.emit("Concat", start, c.emit("Sub", room, start), axis=0)
    inside = c.emit("Expand", c.build.constant(True), part)
    chosen = c.emit("Pad", inside, pads)
    c.bind(c.emit("Where", chosen, c.emit("Pad", update, pads), x))
