"""CIFAR-10 as the tool reads it, and how training changes it.

`write(data, model, folder)` makes train.npz and test.npz under the input name of a model. `augment`
is for `--augment benchmarks/train/cifar.py:augment`: a flip and a shift of each image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime import Session

if TYPE_CHECKING:
    from pathlib import Path

SHIFT = 4  # pixels


def write(data: Path, model: Path, folder: Path) -> tuple[Path, Path]:
    """The training and the test samples, in the layout of the model: NHWC, 0 to 255."""
    name = Session(model).inputs[0].name
    paths = (folder / "train.npz", folder / "test.npz")
    with np.load(data) as arrays:
        for part, path in zip(("train", "test"), paths, strict=True):
            images = {name: arrays[f"{part}_x"].astype(np.float32)}
            np.savez(path, **images, labels=arrays[f"{part}_y"].astype(np.int64))
    return paths


def augment(feeds: dict[str, Any], generator: np.random.Generator) -> dict[str, Any]:
    """Each image [height, width, channels] flipped or not, and shifted; black comes in."""
    changed = {}
    for name, images in feeds.items():
        padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
        result = np.empty_like(images)
        for number, image in enumerate(padded):
            y, x = generator.integers(0, 2 * SHIFT + 1, 2)
            cut = image[y : y + images.shape[1], x : x + images.shape[2]]
            result[number] = cut[:, ::-1] if generator.random() < 0.5 else cut
        changed[name] = result
    return changed
