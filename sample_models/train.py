"""Train the bundled models and write them with their data and README.

    python sample_models/train.py            # all of them, into this folder
    python sample_models/train.py digits_mlp

Real data: scikit-learn's handwritten digits (1,797 scans of 8x8 pixels from the UCI repository).
60 % train; the held-out 40 % are `digits.npz`. Seeds are fixed. Needs infertool[torch,tensorflow]
and scikit-learn; takes about a minute on two cores.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
SEED = 0
OPSET = 20


@dataclass(frozen=True)
class Digits:
    """Images [n, 1, 8, 8] in 0..1 and classes, split."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def read_digits() -> Digits:
    """Load and split, each class in the same share on both sides."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    parts = train_test_split(
        images, labels.astype(np.int64), test_size=0.4, random_state=SEED, stratify=labels
    )
    return Digits(parts[0], parts[2], parts[1], parts[3])


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )


class DigitsCnn(nn.Module):
    """A small modern network: depthwise separable block, residual, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(1, 32, 3)
        self.depthwise = ConvBlock(32, 32, 3, groups=32)
        self.pointwise = ConvBlock(32, 64, 1)
        self.pool = nn.MaxPool2d(2)
        self.residual = ConvBlock(64, 64, 3)
        self.wide = ConvBlock(64, 96, 3)
        self.head = nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the ten classes."""
        x = self.pool(self.pointwise(self.depthwise(self.stem(image))))
        x = self.wide(x + self.residual(x))
        return self.head(x.mean((2, 3)))


class DigitsMlp(nn.Module):
    """Three dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
            nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the ten classes."""
        return self.layers(image)


class DigitsGru(nn.Module):
    """Reads a scan row by row, as a sequence of eight steps."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 64, batch_first=True)
        self.head = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the ten classes."""
        states, _ = self.gru(image.squeeze(1))
        return self.head(states[:, -1])


def train_torch(module: nn.Module, digits: Digits, epochs: int) -> nn.Module:
    """Adam with one cycle of the learning rate; images are shifted by up to one pixel."""
    generator = torch.Generator().manual_seed(SEED)
    images, labels = torch.from_numpy(digits.train), torch.from_numpy(digits.train_labels)
    optimiser = torch.optim.AdamW(module.parameters(), weight_decay=1e-3)
    batches = -(-len(images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, epochs * batches)
    module.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=generator).split(64):
            shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
            batch = torch.roll(images[rows], shift, (2, 3))
            loss = nn.functional.cross_entropy(module(batch), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return module.eval()


def save_torch(module: nn.Module, name: str) -> None:
    """As .pt2 and, with the batch normalisation left in, as ONNX."""
    # torch.export fixes dimensions of size 1: the example has two samples.
    example, batch = (torch.zeros(2, 1, 8, 8),), {"image": {0: torch.export.Dim("batch")}}
    program = torch.export.export(module, example, dynamic_shapes=batch)
    torch.export.save(program, HERE / f"{name}.pt2")
    exported = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False,
        output_names=["logits"],
    )  # fmt: skip
    save_onnx(exported.model, name)


def save_onnx(model: ir.Model, name: str) -> None:
    """Without the paths of the machine that trained it."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

    ClearMetadataAndDocStringPass()(model)
    RemoveUnusedNodesPass()(model)
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    ir.save(model, HERE / f"{name}.onnx")


def train_keras(digits: Digits) -> None:
    """A small Keras CNN in NHWC, as .keras and, by tf2onnx, as ONNX."""
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(SEED)
    model = keras.Sequential([
        keras.Input((8, 8, 1), name="pixels"),
        keras.layers.Conv2D(24, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(48, 3, padding="same", activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, name="logits"),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    pixels = digits.train.transpose(0, 2, 3, 1)
    model.fit(pixels, digits.train_labels, batch_size=32, epochs=60, verbose=0)
    model.save(HERE / "digits_keras.keras")
    spec = (tf.TensorSpec((None, 8, 8, 1), tf.float32, name="pixels"),)
    # from_keras of tf2onnx 1.17 does not know the output names of Keras 3.
    function = tf.function(lambda pixels: {"logits": model(pixels, training=False)})
    proto, _ = tf2onnx.convert.from_function(function, input_signature=spec, opset=18)
    save_onnx(ir.from_proto(proto), "digits_keras")


TORCH = {
    "digits_cnn": (DigitsCnn, 60),
    "digits_mlp": (DigitsMlp, 60),
    "digits_gru": (DigitsGru, 60),
}


def accuracy(name: str, digits: Digits) -> float:
    """Share of the held-out samples that ONNX Runtime classifies as labelled."""
    session = onnxruntime.InferenceSession(HERE / f"{name}.onnx")
    feed = session.get_inputs()[0]
    images = digits.test if feed.name == "image" else digits.test.transpose(0, 2, 3, 1)
    scores = session.run(None, {feed.name: images})[0]
    return float(np.mean(scores.argmax(1) == digits.test_labels))


def describe(name: str, digits: Digits) -> str:
    """One row of the README's table."""
    model = ir.load(HERE / f"{name}.onnx")
    arrays = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    parameters = sum(a.size for a in arrays if a.size > 1 and a.dtype == ir.DataType.FLOAT)
    source = name + (".keras" if name == "digits_keras" else ".pt2")
    data = "digits_nhwc.npz" if name == "digits_keras" else "digits.npz"
    size = (HERE / f"{name}.onnx").stat().st_size
    share = 100 * accuracy(name, digits)
    return f"| `{name}.onnx` | `{source}` | `{data}` | {share:.2f} % | {parameters:,} | {size:,} |"


def write_readme(digits: Digits) -> None:
    """State what was measured."""
    rows = "\n".join(describe(name, digits) for name in (*TORCH, "digits_keras"))
    (HERE / "README.md").write_text(README.format(rows=rows, count=len(digits.test)))


README = """# Sample models

Small networks, really trained on scikit-learn's handwritten digits (1,797 scans of 8x8 pixels; 60 %
train, {count} held-out samples in the data files). Accuracy is top-1 on all held-out samples in
ONNX Runtime.

| ONNX | framework's own | data | accuracy | parameters | bytes |
|---|---|---|---|---|---|
{rows}

`digits_cnn`: depthwise separable block, residual and ReLU6, with its batch normalisation left in.
`digits_mlp`: three dense layers. `digits_gru`: reads a scan as a sequence of eight rows.
`digits_keras`: a Keras CNN in NHWC.

Train them again with `python sample_models/train.py`.
"""


def main(names: list[str]) -> None:
    """Train the named models, or all."""
    digits = read_digits()
    torch.set_num_threads(2)
    labels = digits.test_labels
    np.savez_compressed(HERE / "digits.npz", image=digits.test, labels=labels)
    pixels = np.ascontiguousarray(digits.test.transpose(0, 2, 3, 1))
    np.savez_compressed(HERE / "digits_nhwc.npz", pixels=pixels, labels=labels)
    for name in names or [*TORCH, "digits_keras"]:
        if name == "digits_keras":
            train_keras(digits)
        else:
            kind, epochs = TORCH[name]
            torch.manual_seed(SEED)
            save_torch(train_torch(kind(), digits, epochs), name)
    write_readme(digits)


if __name__ == "__main__":
    main(sys.argv[1:])
