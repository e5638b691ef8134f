"""Each family of operators in float, against LiteRT on the same file."""

from __future__ import annotations

import numpy as np
import pytest

from infer_runtime import Session
from infer_tool.importers import ImportOptions, import_source

R = np.random.default_rng(7)
IMAGE = [1, 8, 8, 4]


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def _k(*shape: int) -> np.ndarray:
    return R.normal(size=shape).astype(np.float32)


def test_elementwise(tf, convert, agree) -> None:
    def net(x):
        y = tf.abs(x) + 0.1
        return [
            tf.sigmoid(x), tf.tanh(x), -x, tf.exp(x), tf.sin(x), tf.cos(x), tf.floor(x),
            tf.math.ceil(x), tf.round(x * 2), tf.sign(x), tf.nn.elu(x), tf.math.log(y), tf.sqrt(y),
            tf.math.rsqrt(y), tf.square(x), tf.nn.relu(x), tf.nn.relu6(x * 4),
            tf.nn.leaky_relu(x, 0.1), tf.nn.gelu(x, True), x * tf.nn.relu6(x + 3) / 6,
            tf.nn.softmax(x), tf.nn.log_softmax(x), tf.nn.l2_normalize(x, -1),
            tf.nn.local_response_normalization(x, 2), tf.cast(tf.cast(x * 5, tf.int32), tf.float32),
            tf.atan2(x, x[:, ::-1]), tf.quantization.fake_quant_with_min_max_args(x, -1, 2),
        ]  # fmt: skip

    agree(convert(net, IMAGE), 3e-6)


def test_exact_gelu(tf, convert, agree) -> None:
    agree(convert(tf.nn.gelu, IMAGE))


def test_pairs(tf, convert, agree) -> None:
    def net(x, y):
        z = tf.abs(y) + 1
        return [
            x + y, tf.nn.relu(x - y), x * y, x / z, tf.maximum(x, y), tf.minimum(x, y),
            tf.pow(tf.abs(x) + 0.1, y), tf.math.squared_difference(x, y), tf.add_n([x, x * 2, x]),
            tf.math.floordiv(x, z), tf.math.floormod(x, z), x > y, x < y, x >= y, x <= y,
            tf.equal(x, x), tf.not_equal(x, y), tf.logical_and(x > 0, y > 0),
            tf.logical_or(x > 0, y > 0), tf.logical_not(x > 0), tf.where(x > y, x, x * 2),
        ]  # fmt: skip

    agree(convert(net, IMAGE, [1, 1, 8, 4]), 3e-6)


def test_integers_divide_downwards(tf, convert, agree) -> None:
    path = convert(
        lambda a, b: [tf.math.floordiv(a - 5, b), tf.math.floormod(a - 5, b), a * b - a],
        [4, 5], [4, 5], dtypes=[tf.int32] * 2,
    )  # fmt: skip
    agree(path)


def test_convolutions(tf, convert, agree) -> None:
    def net(x):
        return [
            tf.nn.relu6(tf.nn.conv2d(x, _k(3, 3, 4, 8), 2, "SAME") + _k(8)),
            tf.nn.conv2d(x, _k(3, 2, 4, 5), 1, "SAME", dilations=2),
            tf.nn.conv2d(x, _k(3, 3, 2, 8), 1, "VALID"),
            tf.nn.depthwise_conv2d(x, _k(3, 3, 4, 2), [1, 2, 2, 1], "SAME"),
            tf.nn.conv2d_transpose(x, _k(3, 3, 6, 4), [1, 16, 16, 6], 2, "SAME") + _k(6),
            tf.nn.conv2d_transpose(x, _k(3, 3, 7, 4), [1, 17, 17, 7], 2, "VALID"),
        ]

    model = agree(convert(net, IMAGE))
    assert sum(n.op_type == "Conv" for n in model.graph) == 4


def test_convolutions_of_volumes(tf, convert, agree) -> None:
    def net(x):
        return [
            tf.nn.conv3d(x, _k(2, 3, 3, 4, 6), [1, 1, 2, 2, 1], "SAME"),
            tf.nn.conv3d_transpose(x, _k(2, 3, 3, 6, 4), [1, 10, 16, 16, 6], 2, "SAME"),
        ]

    agree(convert(net, [1, 5, 8, 8, 4]))


def test_pools(tf, convert, agree) -> None:
    def net(x):
        return [
            tf.nn.max_pool2d(x, 3, 2, "SAME"), tf.nn.avg_pool2d(x, 3, 2, "SAME"),
            tf.nn.avg_pool2d(x, 2, 2, "VALID"),
        ]  # fmt: skip

    agree(convert(net, IMAGE))


def test_products(tf, convert, agree) -> None:
    def net(x):
        rows = tf.reshape(x, [4, 64])
        return [
            tf.nn.relu(tf.matmul(rows, _k(64, 10)) + _k(10)), tf.matmul(x, _k(4, 3)) + _k(3),
            tf.matmul(x[0], x[0], transpose_b=True), tf.matmul(x[0], x[0], transpose_a=True),
        ]  # fmt: skip

    agree(convert(net, IMAGE), 3e-6)


def test_reductions(tf, convert, agree) -> None:
    def net(x):
        return [
            tf.reduce_mean(x, [1, 2]), tf.reduce_sum(x, 3, keepdims=True), tf.reduce_max(x, [1, 2]),
            tf.reduce_min(x, 3), tf.reduce_prod(x, 3), tf.argmax(x, -1), tf.argmin(x, 1),
            tf.cumsum(x, 1, exclusive=True), tf.cumsum(x, -1, reverse=True), *tf.math.top_k(x, 3),
            tf.reduce_any(x > 1, 1), tf.reduce_all(x > 0, [1]), tf.where(x > 0.5),
            *tf.unique(tf.cast(tf.reshape(x, [-1]) * 2, tf.int32)),
            tf.raw_ops.Bucketize(input=x, boundaries=[-1.0, 0.0, 1.0]),
        ]  # fmt: skip

    agree(convert(net, IMAGE), 3e-6)


def test_movement(tf, convert, agree) -> None:
    def net(x):
        pads = [[0, 0], [1, 2], [0, 1], [0, 0]]
        return [
            tf.transpose(x, [0, 3, 1, 2]), tf.reshape(x, [1, -1, 4]), tf.squeeze(x),
            tf.expand_dims(x, 2), tf.concat([x, x * 2], 3), tf.stack([x, x * 2], 1),
            *tf.unstack(x, axis=3), *tf.split(x, 2, 3), *tf.split(x, [1, 3], 3),
            tf.pad(x, pads), tf.pad(x, pads, constant_values=0.5), tf.pad(x, pads, "REFLECT"),
            tf.pad(x, pads, "SYMMETRIC"), tf.tile(x, [1, 2, 1, 1]), tf.broadcast_to(x, [3, 8, 8, 4]),
            tf.reverse(x, [1]), tf.reverse_sequence(x[0], tf.range(1, 9), 1, 0),
            tf.gather(x, [2, 0, 1], axis=3), tf.gather(x, tf.constant([[2, 0]]), axis=3, batch_dims=1),
            tf.gather_nd(x, [[0, 1, 2], [0, 3, 4]]),
            tf.scatter_nd(tf.constant([[0], [2], [0]]), x[0, :3, 0], [5, 4]),
        ]  # fmt: skip

    agree(convert(net, IMAGE))


def test_slices(tf, convert, agree) -> None:
    def net(x):
        return [
            tf.slice(x, [0, 1, 2, 0], [1, 3, -1, 2]), x[:, 1:7:2, ::-1, 1], x[:, -1], x[:, -3:-1],
            x[..., tf.newaxis, 1:3], x[:, :, -2::-2], x[0, tf.newaxis, 3, ..., 2],
        ]  # fmt: skip

    agree(convert(net, IMAGE))


def test_generated_values(tf, convert, agree) -> None:
    def net(x, n):
        index = tf.cast(tf.round(x * 3), tf.int32)
        return [
            tf.shape(x), tf.one_hot(index, 4, 2.0, -1.0), tf.one_hot(index, 3, axis=1),
            tf.zeros_like(x), tf.linalg.diag(x), tf.linalg.set_diag(x, x[:, :, :4, 0]),
            tf.range(1, n + 5, 2), tf.fill(tf.stack([n + 1, 3]), 2.5), tf.eye(3) * tf.cast(n, tf.float32),
        ]  # fmt: skip

    agree(convert(net, IMAGE, [], dtypes=[tf.float32, tf.int32]))


@pytest.mark.parametrize("size", [[13, 16], [16, 16], [5, 3]])
def test_resizing(tf, convert, agree, size) -> None:
    old = tf.compat.v1.image

    def net(x):
        return [
            old.resize_bilinear(x, size), old.resize_bilinear(x, size, align_corners=True),
            tf.image.resize(x, size), old.resize_nearest_neighbor(x, size),
            old.resize_nearest_neighbor(x, size, align_corners=True),
            tf.image.resize(x, size, "nearest"),
        ]  # fmt: skip

    agree(convert(net, IMAGE), 3e-6)


def test_blocks(tf, convert, agree) -> None:
    def net(x):
        batch = tf.space_to_batch(x, [2, 2], [[0, 0], [1, 1]])
        return [
            tf.nn.depth_to_space(x, 2), tf.nn.space_to_depth(x, 2), batch,
            tf.batch_to_space(batch * 2, [2, 2], [[0, 1], [1, 0]]),
        ]  # fmt: skip

    agree(convert(net, IMAGE))


def test_fourier(tf, convert, agree) -> None:
    def net(x):
        rows, images = x[:, :, 0], x[:, :, :, 0]
        spectrum = tf.signal.rfft(rows, [16])
        return [
            tf.abs(tf.signal.rfft(rows)), tf.math.real(spectrum), tf.math.imag(spectrum),
            tf.abs(tf.signal.rfft2d(images)),
        ]  # fmt: skip

    agree(convert(net, [1, 8, 8, 4]), 3e-6)


def test_boxes(tf, convert, agree) -> None:
    def net(corners, scores):
        boxes = tf.concat([corners, corners + 1], 1)
        options = {
            "boxes": boxes, "scores": scores, "max_output_size": 6, "iou_threshold": 0.3,
            "score_threshold": -0.5, "pad_to_max_output_size": True,
        }  # fmt: skip
        return [
            *tf.raw_ops.NonMaxSuppressionV4(**options),
            *tf.raw_ops.NonMaxSuppressionV5(**options, soft_nms_sigma=0.0),
        ]

    agree(convert(net, [20, 2], [20]))


def test_branches_and_loops(tf, convert, agree) -> None:
    def net(x):
        branch = tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1)
        count, looped = tf.while_loop(
            lambda i, y: i < 5, lambda i, y: (i + 1, y * 1.5 + tf.cast(i, tf.float32)), [0, x]
        )
        return [branch, looped, count]

    path = convert(net, [2, 3])
    agree(path)
    imported = import_source(str(path), ImportOptions())
    (name,) = (i.name for i in Session(imported.model).inputs)
    for x in (_k(2, 3) + 2, _k(2, 3) - 2):  # both branches
        got, wanted = Session(imported.model).run({name: x}), imported.reference({name: x})
        for key, value in wanted.items():
            np.testing.assert_allclose(got[key], value, rtol=1e-6)


def test_shapes_that_the_file_does_not_know(tf, convert, agree) -> None:
    """Behind a computed shape the file holds ones in the place of all sizes."""

    def net(x):
        image = tf.reshape(x, tf.stack([tf.shape(x)[0], 8, 8, 4]))
        y = tf.nn.conv2d(image, _k(3, 3, 4, 8), 2, "SAME")
        groups = tf.reshape(y, tf.concat([tf.shape(y)[:-1], [2, 4]], 0))
        centred = groups - tf.reduce_mean(groups, [1, 2, 4], keepdims=True)
        return [tf.reshape(centred, tf.shape(y))]

    path = convert(net, [None, 256])
    for batch in (1, 3):
        model = agree(path, batch=batch)
    assert str(model.graph.inputs[0].shape[0]) == "batch"
    (conv,) = (n for n in model.graph if n.op_type == "Conv")
    assert list(conv.outputs[0].shape[1:]) == [8, 4, 4]


def test_recurrent_layers_of_keras(tf, agree, tmp_path) -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    keras.utils.set_random_seed(1)
    series = keras.Input(batch_shape=(1, 7, 5))
    outputs = [
        layers.LSTM(6, return_sequences=True, go_backwards=True)(series),
        layers.Bidirectional(layers.GRU(4))(series), layers.SimpleRNN(3)(series),
    ]  # fmt: skip
    path = tmp_path / "rnn.tflite"
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(series, outputs))
    path.write_bytes(converter.convert())
    agree(path)
