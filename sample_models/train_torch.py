"""The PyTorch models: what they are, how they are trained, and how they are written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import digits
import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPSET = 20
BATCH = 64


def conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the image size, and its batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class DigitsCNN(nn.Module):
    """A separable convolution and a residual block, each with batch normalisation."""

    data = digits.NCHW
    epochs = 60

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 32, 3)
        self.depthwise = conv(32, 32, 3, groups=32)
        self.pointwise = conv(32, 64, 1)
        self.pool = nn.MaxPool2d(2)
        self.first, self.second = conv(64, 64, 3), conv(64, 64, 3)
        self.classify = nn.Linear(64, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 10] of images [batch, 1, 8, 8]."""
        x = torch.relu(self.stem(image))
        x = torch.relu(self.pointwise(torch.relu(self.depthwise(x))))
        x = self.pool(x)
        x = torch.relu(x + self.second(torch.relu(self.first(x))))
        logits: torch.Tensor = self.classify(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class DigitsMLP(nn.Module):
    """Three dense layers."""

    data = digits.NCHW
    epochs = 120

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 10] of images [batch, 1, 8, 8]."""
        logits: torch.Tensor = self.layers(image)
        return logits


class DigitsGRU(nn.Module):
    """Reads a digit row by row: a convolution along the rows, a GRU, its last state classified."""

    data = digits.ROWS
    epochs = 120

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 32, 3, padding=1)
        self.gru = nn.GRU(32, 64, batch_first=True)
        self.classify = nn.Linear(64, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits [batch, 10] of sequences [batch, 8 steps, 8 pixels]."""
        x = torch.relu(self.conv(rows.transpose(1, 2))).transpose(1, 2)
        logits: torch.Tensor = self.classify(self.gru(x)[0][:, -1])
        return logits


MODELS: dict[str, type[DigitsCNN | DigitsMLP | DigitsGRU]] = {
    "digits_cnn": DigitsCNN,
    "digits_mlp": DigitsMLP,
    "digits_gru": DigitsGRU,
}


def build(name: str, folder: Path, part: digits.Part) -> None:
    """Train the model `name` on `part`; write `name.onnx` and `name.pt2`."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(mode=True)
    model = MODELS[name]()
    train(model, part)
    save(model.eval(), name, folder)


def train(model: DigitsCNN | DigitsMLP | DigitsGRU, part: digits.Part) -> None:
    """AdamW with one cycle of the learning rate, on images that move by a pixel."""
    generator = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = model.epochs * (len(part.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for _ in range(model.epochs):
        order = generator.permutation(len(part.labels))
        images = model.data.layout(digits.shifted(part.images[order], generator))
        labels = part.labels[order]
        for start in range(0, len(order) - BATCH + 1, BATCH):
            batch = slice(start, start + BATCH)
            scores = model(torch.from_numpy(images[batch]))
            loss = functional.cross_entropy(scores, torch.from_numpy(labels[batch]))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()


def save(model: DigitsCNN | DigitsMLP | DigitsGRU, name: str, folder: Path) -> None:
    """Write the trained model as an ExportedProgram and as ONNX, the batch dynamic in both."""
    example = torch.from_numpy(model.data.layout(np.zeros((2, 1, 8, 8), np.float32)))
    shapes = {model.data.key: {0: torch.export.Dim("batch")}}
    with quiet():
        program = torch.export.export(model, (example,), dynamic_shapes=shapes)
        save_onnx(program, model.data.key, folder / f"{name}.onnx")
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
        archive = io.BytesIO()  # saved by path, the archive would carry the file's name inside
        torch.export.save(program, archive)
    (folder / f"{name}.pt2").write_bytes(archive.getvalue())


def save_onnx(program: torch.export.ExportedProgram, key: str, path: Path) -> None:
    """Write what the exporter makes before any optimisation: that work is left to infertool."""
    exported = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,
        opset_version=OPSET,
        input_names=[key],
        output_names=["logits"],
        dynamic_shapes={key: {0: "batch"}},
    )
    assert exported is not None
    model = exported.model
    assert model.opset_imports[""] == OPSET
    ClearMetadataAndDocStringPass()(model)  # stack traces with paths of this machine
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    ir.save(model, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's progress lines and its warnings about itself."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
