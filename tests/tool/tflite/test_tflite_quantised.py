"""Quantised files: integers equal to LiteRT's bit for bit, and what they look like in the graph."""

from __future__ import annotations

import numpy as np
import pytest

from infer_runtime import Session
from infer_tool.importers import ImportOptions, import_source

R = np.random.default_rng(9)
IMAGE = [1, 8, 8, 4]


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def _k(*shape: int) -> np.ndarray:
    return (R.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)


def test_convolutions(tf, convert, agree) -> None:
    def net(x):
        return [
            tf.nn.relu6(tf.nn.conv2d(x, _k(3, 3, 4, 8), 2, "SAME") + _k(8)),
            tf.nn.relu(tf.nn.conv2d(x, _k(1, 1, 4, 6), 1, "VALID")),
            tf.nn.depthwise_conv2d(x, _k(3, 3, 4, 2), [1, 2, 2, 1], "SAME"),
            tf.nn.conv2d_transpose(x, _k(3, 3, 6, 4), [1, 16, 16, 6], 2, "SAME") + _k(6),
            tf.nn.relu(tf.matmul(tf.reshape(x, [4, 64]), _k(64, 10)) + _k(10)),
        ]

    model = agree(convert(net, IMAGE, int8=True), seeds=4)
    for node in model.graph:
        if node.op_type == "Conv":  # nothing stands between the integers and the convolution
            assert all(v.producer().op_type == "DequantizeLinear" for v in node.inputs if v)
            assert node.inputs[1].producer().inputs[0].const_value.dtype.name == "INT8"
    scales = [
        n.inputs[1]
        for n in model.graph
        if n.op_type == "DequantizeLinear" and "axis" in n.attributes
    ]
    assert scales  # one for each channel


def test_means_round_halves_away_from_zero(tf, convert, agree) -> None:
    """Means of 2 x 2 integers are halves in every second place."""

    def net(x):
        return [tf.nn.avg_pool2d(x, 2, 2, "VALID"), tf.nn.avg_pool2d(x, 3, 2, "SAME"),
                tf.nn.relu6(tf.nn.avg_pool2d(x, 2, 2, "VALID"))]  # fmt: skip

    agree(convert(net, IMAGE, int8=True), seeds=8)


def test_elementwise_and_reductions(tf, convert, agree) -> None:
    def net(x, y):
        return [
            x + y, tf.nn.relu(x - y), x * y, tf.maximum(x, y), tf.sigmoid(x), tf.tanh(x),
            tf.nn.softmax(x), x * tf.nn.relu6(x + 3) / 6, tf.nn.relu(x), tf.abs(x),
            tf.reduce_mean(x, [1, 2]), tf.reduce_sum(x, 3), tf.reduce_max(x, [1, 2]),
            tf.nn.max_pool2d(x, 3, 2, "SAME"),
        ]  # fmt: skip

    agree(convert(net, IMAGE, [1, 1, 8, 4], int8=True), seeds=4)


def test_movement_stays_on_integers(tf, convert, agree) -> None:
    def net(x):
        pads = [[0, 0], [1, 2], [0, 1], [0, 0]]
        return [
            tf.transpose(x, [0, 3, 1, 2]), tf.reshape(x, [1, -1, 4]), tf.concat([x, x], 3),
            tf.stack([x, x], 1), *tf.split(x, 2, 3), tf.pad(x, pads), tf.pad(x, pads, "REFLECT"),
            tf.slice(x, [0, 1, 2, 0], [1, 3, -1, 2]), x[:, 1:7:2, :, 1], tf.tile(x, [1, 2, 1, 1]),
            tf.gather(x, [2, 0, 1], axis=3), tf.nn.depth_to_space(x, 2),
            tf.space_to_batch(x, [2, 2], [[0, 0], [1, 1]]), tf.image.resize(x, [16, 16], "nearest"),
        ]  # fmt: skip

    model = agree(convert(net, IMAGE, int8=True))
    moved = {"Transpose", "Reshape", "Concat", "Split", "Slice", "Tile", "Gather"}
    # The converter itself leaves some of its operators in float.
    integers = [n for n in model.graph if n.op_type in moved and n.inputs[0].dtype.name == "INT8"]
    assert {n.op_type for n in integers} == moved


def test_a_network_with_a_residual(tf, convert, agree) -> None:
    def net(x):
        x = tf.nn.relu6(tf.nn.conv2d(x, _k(3, 3, 4, 16), 1, "SAME") + _k(16))
        y = tf.nn.relu6(tf.nn.depthwise_conv2d(x, _k(3, 3, 16, 1), [1, 1, 1, 1], "SAME"))
        x = x + tf.nn.conv2d(y, _k(1, 1, 16, 16), 1, "SAME")
        x = tf.nn.avg_pool2d(x, 2, 2, "VALID")
        return [tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), _k(16, 5) * 3))]

    agree(convert(net, IMAGE, int8=True), seeds=6)


def test_activations_of_16_bits(tf, convert) -> None:
    """LiteRT rounds these twice: results may be one of 65536 steps apart."""

    def net(x):
        y = tf.nn.relu(tf.nn.conv2d(x, _k(3, 3, 4, 8), 2, "SAME") + _k(8))
        return [tf.matmul(tf.reshape(y, [1, 128]), _k(128, 5))]

    kind = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    target = tf.lite.TargetSpec(supported_ops=[kind])
    imported = import_source(
        str(convert(net, IMAGE, int8=True, settings={
            "target_spec": target, "inference_input_type": tf.int16,
            "inference_output_type": tf.int16,
        })),
        ImportOptions(),
    )  # fmt: skip
    assert imported.model.opset_imports[""] == 21
    session = Session(imported.model)
    x = R.integers(-32768, 32768, IMAGE).astype(np.int16)
    feeds = {session.inputs[0].name: x}
    got, wanted = session.run(feeds), imported.reference(feeds)
    for name, value in wanted.items():
        assert value.dtype == np.int16
        assert np.abs(got[name].astype(int) - value).max() <= 1


def test_half_precision_weights(tf, convert, agree) -> None:
    def net(x):
        return [tf.nn.relu(tf.nn.conv2d(x, _k(3, 3, 4, 32), 2, "SAME") + _k(32))]

    settings = {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "target_spec": tf.lite.TargetSpec(supported_types=[tf.float16]),
    }
    agree(convert(net, IMAGE, settings=settings))


def test_hybrid_operators_keep_values_in_float(tf, convert) -> None:
    """LiteRT itself rounds the values to 8 bits, which the reference is kept from."""
    weight = _k(256, 64)

    def net(x):
        return [tf.matmul(x, weight)]

    path = convert(net, [4, 256], settings={"optimizations": [tf.lite.Optimize.DEFAULT]})
    imported = import_source(str(path), ImportOptions())
    assert imported.route.startswith("1 hybrid operators")
    constants = {v.const_value.dtype.name for v in imported.model.graph.initializers.values()}
    assert "INT8" in constants
    x = R.normal(size=(4, 256)).astype(np.float32)
    name = imported.model.graph.inputs[0].name
    (wanted,) = imported.reference({name: x}).values()
    (got,) = Session(imported.model).run({name: x}).values()
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    exact = x @ weight
    assert 1e-3 < np.abs(got - exact).max() / np.abs(exact).max() < 1e-2  # the weights are rounded


@pytest.mark.parametrize(("kind", "low", "high"), [("INT4", -8, 7), ("INT2", -2, 1)])
def test_packed_weights(build, quantised, schema, kind, low, high) -> None:
    """Several integers in a byte, the first in its lowest bits."""
    bits = {"INT4": 4, "INT2": 2}[kind]
    weight = R.integers(low, high + 1, (3, 5)).astype(np.int8)
    packed = np.zeros(-(-weight.size // (8 // bits)), np.uint8)
    for i, value in enumerate(weight.reshape(-1)):
        packed[i * bits // 8] |= (int(value) & (2**bits - 1)) << (i * bits % 8)
    kinds = {"INT4": schema.TensorType.INT4, "INT2": 19}
    parameters = quantised([0.5, 0.25, 2.0], [0, 0, 0])
    attributes = {"type": kinds[kind], "quantization": parameters}
    path = build(
        [((2, 5), "FLOAT32"), ((3, 5), packed, attributes), ((2, 3), "FLOAT32")],
        [("FULLY_CONNECTED", [0, 1, -1], [2], ("FullyConnectedOptions", {}))], [0], [2],
    )  # fmt: skip
    model = import_source(str(path), ImportOptions()).model
    x = R.normal(size=(2, 5)).astype(np.float32)
    wanted = x @ (weight * np.array([[0.5], [0.25], [2.0]])).T
    (got,) = Session(model).run({"t0": x}).values()
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert kind in {v.const_value.dtype.name for v in model.graph.initializers.values()}


def test_unsigned_bytes(build, quantised, agree) -> None:
    """The oldest quantised files: weights with a zero point, one scale for each tensor."""
    weight = R.integers(0, 256, (6, 3, 3, 4)).astype(np.uint8)
    bias = R.integers(-2000, 2000, 6).astype(np.int32)
    path = build(
        [
            ((1, 7, 7, 4), "UINT8", {"quantization": quantised([0.02], [120])}),
            ((6, 3, 3, 4), weight, {"quantization": quantised([0.01], [131])}),
            ((6,), bias, {"quantization": quantised([0.0002], [0])}),
            ((1, 4, 4, 6), "UINT8", {"quantization": quantised([0.05], [100])}),
            ((1, 2, 2, 6), "UINT8", {"quantization": quantised([0.05], [100])}),
        ],
        [
            ("CONV_2D", [0, 1, 2], [3], ("Conv2DOptions", {
                "strideH": 2, "strideW": 2, "fusedActivationFunction": 1})),
            ("AVERAGE_POOL_2D", [3], [4], ("Pool2DOptions", {
                "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2})),
        ],
        [0], [4],
    )  # fmt: skip
    agree(path, seeds=4)


def test_a_sparse_weight(build, schema, agree) -> None:
    """Rows in compressed form, and blocks of four along the last axis."""
    dense = np.zeros((6, 8), np.float32)
    blocks = {0: [1], 1: [], 2: [0, 1], 3: [0], 4: [], 5: [1]}
    stored = []
    for row, columns in blocks.items():
        for column in columns:
            dense[row, 4 * column : 4 * column + 4] = value = R.normal(size=4)
            stored.append(value)
    segments = np.cumsum([0, *(len(c) for c in blocks.values())]).astype(np.uint8)
    indices = np.array([c for columns in blocks.values() for c in columns], np.uint8)
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.blockMap = [0, 1, 2], [1]
    sparsity.dimMetadata = [schema.DimensionMetadataT() for _ in range(3)]
    rows, columns, inside = sparsity.dimMetadata
    rows.format, rows.denseSize = 0, 6
    columns.format, columns.denseSize = 1, 0
    for name, values in (("arraySegments", segments), ("arrayIndices", indices)):
        vector = schema.Uint8VectorT()
        vector.values = values
        setattr(columns, name, vector)
        setattr(columns, f"{name}Type", schema.SparseIndexVector.Uint8Vector)
    inside.format, inside.denseSize = 0, 4
    values = np.array(stored, np.float32)
    path = build(
        [
            ((3, 8), "FLOAT32"), ((6, 8), values, {"sparsity": sparsity}), ((6, 8), "FLOAT32"),
            ((3, 6), "FLOAT32"),
        ],
        [
            ("DENSIFY", [1], [2], ("DensifyOptions", {})),
            ("FULLY_CONNECTED", [0, 2, -1], [3], ("FullyConnectedOptions", {})),
        ],
        [0], [3],
    )  # fmt: skip
    model = agree(path)
    (weight,) = (v for v in model.graph.initializers.values() if v.shape == (8, 6))
    np.testing.assert_array_equal(weight.const_value.numpy(), dense.T)
