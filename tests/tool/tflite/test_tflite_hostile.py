"""Damaged and crafted files end in one line, fast, and without much memory."""

from __future__ import annotations

import random
import resource
import struct
from pathlib import Path

import numpy as np
import pytest

from infer_runtime.errors import InferError, ModelError
from infer_tool.importers import ImportOptions, import_source
from infer_tool.importers.tflite.flatbuffer import Reader, Table

MUTATIONS = 600
MEMORY = 1 << 30  # that all mutations together may add
VALUES = [0, 1, 0x7F, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@pytest.fixture
def files(convert, build, schema) -> list[bytes]:
    """A quantised network, a loop, slices, and a file built by hand."""
    tf = pytest.importorskip("tensorflow")
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype(np.float32)

    def net(x):
        return [tf.nn.softmax(tf.reduce_mean(tf.nn.conv2d(x, kernel, 2, "SAME"), [1, 2]))]

    def loop(x):
        y = tf.reshape(x, tf.stack([tf.shape(x)[0], 2, 4]))[:, ::-1, 1:3]
        return tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 1.5), [0, y])

    built = build(
        [((2,), "FLOAT32"), ((2,), np.ones(2, np.float32)), ((2,), "FLOAT32")],
        [("ADD", [0, 1], [2], ("AddOptions", {}))], [0], [2],
    )  # fmt: skip
    paths = [convert(net, [1, 8, 8, 4], int8=True, name="a"), convert(loop, [None, 8], name="b")]
    return [path.read_bytes() for path in (*paths, built)]


def _mutated(content: bytes, source: random.Random) -> bytes:
    """Cut off, bits turned, bytes or whole offsets replaced."""
    kind, data = source.randrange(4), bytearray(content)
    if kind == 0:
        return bytes(data[: source.randrange(8, len(data))])
    for _ in range(source.choice([1, 1, 2, 5, 20])):
        place = source.randrange(8, len(data) - 4)
        if kind == 1:
            data[place] ^= 1 << source.randrange(8)
        elif kind == 2:
            data[place] = source.randrange(256)
        else:
            value = source.choice([*VALUES, source.randrange(len(data))])
            data[place : place + 4] = struct.pack("<I", value)
    return bytes(data)


def test_mutated_files(files, tmp_path) -> None:
    """A mutated file is refused by name or imported; nothing else is known of its content."""
    source, path = random.Random(3), tmp_path / "m.tflite"
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTATIONS):
        path.write_bytes(_mutated(files[number % len(files)], source))
        error = _error(path)
        if error is not None:
            refused += 1
            assert error.exit_code in (2, 3, 5), error
            assert str(error).startswith(str(path)), error
            assert "\n" not in str(error)
    assert refused > MUTATIONS / 3
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


def _error(path: Path) -> InferError | None:
    try:
        import_source(str(path), ImportOptions())
    except InferError as error:
        return error
    return None


def _refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        import_source(str(path), ImportOptions())
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("size", [8, 12, 40])
def test_hardly_a_file(tmp_path, size) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes((b"\x1c\0\0\0TFL3" + bytes(64))[:size])
    _refused(path, "damaged TFLite file")


def test_tables_that_lie_on_each_other() -> None:
    """A thousand offsets to one table, which has a thousand offsets to one table, and so on."""
    data = bytearray(16384)
    struct.pack_into("<I", data, 0, 16)
    struct.pack_into("<HHH", data, 8, 6, 8, 4)  # a vtable with one field, at byte 4 of the table
    for table, target in ((16, 4096), (4096, 9000), (9000, 14000)):
        struct.pack_into("<iI", data, table, table - 8, 4)
        struct.pack_into("<I", data, table + 8, 1000)
        for place in range(table + 12, table + 12 + 4000, 4):
            struct.pack_into("<I", data, place, target - place)
    struct.pack_into("<iI", data, 14000, 14000 - 8, 0)
    with pytest.raises(ModelError, match="unfolds into more than it can hold"):
        _unfold(Reader(bytes(data)).root())


def _unfold(table: Table) -> None:
    for inner in table.tables(0):
        _unfold(inner)


def test_constants_that_are_too_short_or_too_long(build) -> None:
    for count in (3, 5):
        path = build(
            [((4,), "FLOAT32"), ((4,), np.ones(count, np.float32)), ((4,), "FLOAT32")],
            [("ADD", [0, 1], [2], ("AddOptions", {}))], [0], [2],
        )  # fmt: skip
        _refused(path, rf"tensor 1 has {count} values, its shape \[4\] needs 4")


def test_shapes_that_no_machine_holds(build) -> None:
    shape = (60000, 60000, 3)
    path = build([(shape, "FLOAT32"), (shape, "FLOAT32")], [("ABS", [0], [1])], [0], [1])
    _refused(path, "has 10800000000 elements")
    fill = build(
        [((2,), np.array([60000, 60000], np.int32)), ((), np.ones((), np.float32)),
         ((60000, 60000), "FLOAT32")],
        [("FILL", [0, 1], [2], ("FillOptions", {}))], [], [2],
    )  # fmt: skip
    _refused(fill, "has 3600000000 elements")


def test_sparse_weights_that_lie(build, schema) -> None:
    """A terabyte in twelve bytes, and coordinates outside the shape."""

    def sparse(shape, size, indices):
        found = schema.SparsityParametersT()
        found.traversalOrder, found.dimMetadata = [0], [schema.DimensionMetadataT()]
        (level,) = found.dimMetadata
        level.format, level.denseSize = 1, size
        for name, values in (("arraySegments", [0, len(indices)]), ("arrayIndices", indices)):
            vector = schema.Int32VectorT()
            vector.values = values
            setattr(level, name, vector)
            setattr(level, f"{name}Type", 1)
        values = np.ones(3, np.float32)
        return build(
            [(shape, values, {"sparsity": found}), (shape, "FLOAT32"), (shape, "FLOAT32")],
            [("DENSIFY", [0], [1], ("DensifyOptions", {})), ("ABS", [1], [2])], [], [2],
        )  # fmt: skip

    _refused(sparse((1 << 30,), 1 << 30, [0, 1, 2]), "3 values for 1073741824 elements")
    _refused(sparse((8,), 8, [0, 1, 9]), "values outside its shape")
    _refused(sparse((8,), 8, [0, 1, 2, 3, 4]), "fewer than its structure")


def test_references_that_lead_nowhere(build) -> None:
    tensors = [((2,), "FLOAT32"), ((2,), "FLOAT32")]
    _refused(build(tensors, [("ABS", [7], [1])], [0], [1]), "names tensor 7 of 2")
    _refused(build(tensors, [("ABS", [0], [1])], [0], [9]), "names tensor 9 of 2")
    _refused(build(tensors, [("ABS", [], [1])], [0], [1]), "lacks input 0")
    _refused(build(tensors, [("ABS", [0], [])], [0], [1]), "lacks output 0")
    late = [("ABS", [1], [1])]
    _refused(build(tensors, late, [0], [1]), "computed by nobody before it is used")
    options = ("Conv2DOptions", {})
    _refused(
        build(tensors, [("ADD", [0, 0], [1], options)], [0], [1]), "options of another operator"
    )
