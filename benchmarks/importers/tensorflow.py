"""TensorFlow and Keras rows: basic-pitch, ResNet8, and a small network for every trap."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import zoo
from importers.keras_zoo import ZOO
from importers.row import Row, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSED = {"hashed": "StringToHashBucketFast"}  # strings have no ONNX operator


def rows(only: str = "", models: Path | None = None) -> Iterator[Row]:
    """All rows whose model's name holds the text."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if only in "basic-pitch SavedModel":
        yield basic_pitch(zoo.CACHE)
    if only in "ResNet8 .h5" and models is not None:
        yield resnet8(models)
    with TemporaryDirectory() as folder:
        for name, save in ZOO.items():
            if only in name:
                yield trap(name, save(Path(folder)))


def basic_pitch(cache: Path) -> Row:
    """The SavedModel of TensorFlow 2.4 in the wheel, on noise.

    On a pure tone the logarithm of silent bins enlarges the rounding of TensorFlow's own kernels:
    there the ONNX file of the wheel, too, is 1.5e-4 away from TensorFlow; the graph imported here
    differs by 1.4e-5 between the bundled runtime and ONNX Runtime.
    """
    folder = zoo._wheel(cache, "basic-pitch==0.4.0") / "basic_pitch/saved_models/icassp_2022/nmp"
    noise = np.random.default_rng(0).normal(size=(2, 43844, 1)).astype(np.float32)
    feeds = [{"input_2": noise[:1]}, {"input_2": noise / 2}]
    return measure("basic-pitch SavedModel", str(folder), feeds=feeds, limit=1e-4)


def resnet8(models: Path) -> Row:
    """Trained on CIFAR-10, saved by TensorFlow 2.4."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    path = str(models / "resnet8_cifar10.h5")
    return measure("ResNet8 .h5", path, feeds=[{"input_1": pixels[:1]}, {"input_1": pixels}])


def trap(name: str, path: Path) -> Row:
    """Correct, or refused by name where that is expected."""
    row = measure(name, str(path))
    if REFUSED.get(name, "\n") in row.note:
        return Row(name, "refused by name", limit=0.0, note=REFUSED[name])
    return row
