"""Small networks of Keras and TensorFlow with random weights, one for each trap of conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ZOO: dict[str, Callable[[Path], Path]] = {}
STEPS = 6


def _keras(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Register a function from `keras` to a model; it is saved as .keras."""

    def save(folder: Path) -> Path:
        import keras

        keras.utils.set_random_seed(0)
        model, path = build(keras), folder / f"{build.__name__}.keras"
        model.save(path)
        return path

    ZOO[build.__name__] = save
    return build


def _graph(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Register a function from `tensorflow` to a tf.function; it is saved as a SavedModel."""

    def save(folder: Path) -> Path:
        import tensorflow as tf

        tf.random.set_seed(0)
        module, path = tf.Module(), folder / build.__name__
        module.run = build(tf)
        tf.saved_model.save(module, str(path), signatures=module.run)
        return path

    ZOO[build.__name__] = save
    return build


@_keras
def mobilenet_v2(keras: Any) -> Any:
    """Depthwise convolutions; every batch normalisation has statistics of its own."""
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10)
    for number, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.BatchNormalization):
            random = keras.random.SeedGenerator(number)
            for value in (layer.moving_mean, layer.beta):
                value.assign(keras.random.normal(value.shape, stddev=0.2, seed=random))
            layer.moving_variance.assign(
                keras.random.uniform(layer.moving_variance.shape, 0.5, 1.5, seed=random)
            )
    return model


def _recurrent(keras: Any, layer: Any) -> Any:
    return keras.Sequential([keras.Input((None, 5)), layer, keras.layers.Dense(3)])


@_keras
def lstm(keras: Any) -> Any:
    """Of dynamic length."""
    return _recurrent(keras, keras.layers.LSTM(7, return_sequences=True))


@_keras
def gru(keras: Any) -> Any:
    """Of dynamic length."""
    return _recurrent(keras, keras.layers.GRU(7, return_sequences=True))


@_keras
def gru_reset_before(keras: Any) -> Any:
    """The form of ONNX's linear_before_reset = 0."""
    return _recurrent(keras, keras.layers.GRU(7, reset_after=False))


@_keras
def bidirectional(keras: Any) -> Any:
    """Both directions of an LSTM and of a GRU."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((STEPS, 5)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.Bidirectional(layers.GRU(3)),
        ]
    )


@_keras
def masked_lstm(keras: Any) -> Any:
    """Steps that are all zero do not count."""
    return _recurrent(keras, keras.Sequential([keras.layers.Masking(), keras.layers.LSTM(7)]))


@_keras
def transformer(keras: Any) -> Any:
    """One block with exact gelu, on tokens."""
    layers = keras.layers
    tokens = keras.Input((STEPS,), dtype="int32", name="tokens")
    x = layers.Embedding(11, 16)(tokens)
    y = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(2, 8)(y, y)
    y = layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x))
    return keras.Model(tokens, layers.Dense(16)(y) + x)


@_keras
def grouped_convolution(keras: Any) -> Any:
    """Groups, dilation, transposed and normalised by groups."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 12, 4)),
            layers.Conv2D(8, 3, groups=2, padding="same", activation="silu"),
            layers.GroupNormalization(4),
            layers.Conv2D(8, 3, dilation_rate=2, padding="same"),
            layers.PReLU(shared_axes=[1, 2]),
            layers.Conv2DTranspose(6, 3, strides=2, padding="same"),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.SeparableConv2D(5, 3, strides=2, padding="same"),
        ]
    )


@_keras
def conv3d(keras: Any) -> Any:
    """Three and one spatial dimensions."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 8, 8, 2)),
            layers.Conv3D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling3D(2),
            layers.Reshape((12, 16)),
            layers.Conv1D(6, 3, padding="causal"),
            layers.Conv1DTranspose(3, 4, strides=2),
        ]
    )


@_graph
def while_loop(tf: Any) -> Any:
    """Its length is an input."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, 4], name="x"), tf.TensorSpec([], tf.int32, "n")]
    )
    def run(x: Any, n: Any) -> Any:
        def body(i: Any, y: Any) -> Any:
            return i + 1, tf.nn.tanh(y) + tf.cast(i, tf.float32) * 0.1

        return {"y": tf.while_loop(lambda i, _: i < n, body, [0, x])[1]}

    return run


@_graph
def cond(tf: Any) -> Any:
    """Decided by the data."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def run(x: Any) -> Any:
        return {"y": tf.cond(tf.reduce_sum(x) > 1.0, lambda: x * 2.0, lambda: tf.nn.softmax(x))}

    return run


@_graph
def one_hot(tf: Any) -> Any:
    """Indices below zero and beyond the depth select nothing, on any axis."""

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.int32, "i")])
    def run(i: Any) -> Any:
        around = i - 2
        return {
            "last": tf.one_hot(around, 3),
            "first": tf.one_hot(around, 5, on_value=2.5, off_value=-1.0, axis=0),
            "middle": tf.one_hot(around, 4, on_value=7, off_value=1, axis=1),
            "scalar": tf.one_hot(around[0, 0], 3),
            "bytes": tf.one_hot(tf.cast(i, tf.uint8), 2, dtype=tf.float64),
        }

    return run


@_graph
def non_max_suppression(tf: Any) -> Any:
    """As many boxes as remain."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 4], name="boxes"),
            tf.TensorSpec([None], name="scores"),
        ]
    )
    def run(boxes: Any, scores: Any) -> Any:
        corners = tf.concat([boxes[:, :2], boxes[:, :2] + tf.abs(boxes[:, 2:])], 1)
        kept = tf.image.non_max_suppression(corners, scores, 5, 0.5, 0.1)
        return {"kept": kept, "boxes_kept": tf.gather(corners, kept)}

    return run


@_graph
def stft(tf: Any) -> Any:
    """The magnitude and the logarithm of mel bands."""

    @tf.function(input_signature=[tf.TensorSpec([None, 400], name="sound")])
    def run(sound: Any) -> Any:
        spectrum = tf.abs(tf.signal.stft(sound, 128, 64, fft_length=128))
        mel = tf.signal.linear_to_mel_weight_matrix(20, 65, 8000, 60.0, 3800.0)
        return {"spectrum": spectrum, "mel": tf.math.log(spectrum @ mel + 1e-3)}

    return run


@_graph
def assorted(tf: Any) -> Any:
    """Operations whose definition differs in details."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def run(x: Any) -> Any:
        whole = tf.cast(x * 3, tf.int32)
        return {
            "floormod": tf.math.floormod(whole, -3),
            "floordiv": whole // -2,
            "truncate": tf.truncatediv(whole, 3),
            "round": tf.round(x * 2.5),
            "top": tf.math.top_k(x, 2).values,
            "where": tf.where(x > 0, x, tf.math.expm1(x)),
            "gather": tf.gather(x, [2, 0], axis=1),
            "strided": x[:, ::-2],
            "cumsum": tf.cumsum(x, 1, exclusive=True, reverse=True),
            "argmax": tf.argmax(x, 1),
            "gelu": tf.nn.gelu(x),
            "segment": tf.reduce_logsumexp(x, 1, keepdims=True),
        }

    return run


@_graph
def fake_quantised(tf: Any) -> Any:
    """What quantisation-aware training leaves in a graph."""

    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def run(x: Any) -> Any:
        weight = tf.random.stateless_normal([4, 3], [1, 2])
        scaled = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            weight, [-1.0, -2.0, -0.5], [1.0, 2.0, 0.5], narrow_range=True
        )
        return {"y": tf.quantization.fake_quant_with_min_max_vars(x @ scaled, -3.0, 3.1)}

    return run


@_graph
def hashed(tf: Any) -> Any:
    """An operation that ONNX has not: refused by name."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def run(text: Any) -> Any:
        return {"y": tf.strings.to_hash_bucket_fast(text, 10)}

    return run
