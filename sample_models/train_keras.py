"""The Keras model: what it is, how it is trained, and how it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import digits
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

NAME = "digits_keras"
DATA = digits.NHWC
OPSET = 18  # the newest that tf2onnx writes
EPOCHS = 60


def build(folder: Path, part: digits.Part) -> None:
    """Train on `part`; write `digits_keras.keras` and, through tf2onnx, `digits_keras.onnx`."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    model = network()
    train(model, part)
    save(model, folder)


def network() -> Any:
    """Two convolutions with batch normalisation on images [batch, 8, 8, 1], logits [batch, 10]."""
    from tensorflow.keras import Sequential, layers

    return Sequential(
        [
            layers.Input((8, 8, 1), name=DATA.key),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(64, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ],
        name=NAME,
    )


def train(model: Any, part: digits.Part) -> None:
    """Adam with a learning rate that falls to zero, on images that move by a pixel."""
    from tensorflow import keras

    generator = np.random.default_rng(0)
    steps = EPOCHS * -(-len(part.labels) // 64)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for _ in range(EPOCHS):
        images = DATA.layout(digits.shifted(part.images, generator))
        model.fit(images, part.labels, batch_size=64, verbose=0)


def save(model: Any, folder: Path) -> None:
    """Write the layers and weights alone, without the state of the optimiser."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    bare = tf.keras.Model(model.inputs[0], model.outputs[0], name=NAME)
    bare.save(folder / f"{NAME}.keras")
    signature = [tf.TensorSpec((None, 8, 8, 1), tf.float32, name=DATA.key)]
    proto, _ = tf2onnx.convert.from_keras(bare, signature, opset=OPSET)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(proto, folder / f"{NAME}.onnx")
