"""Handwritten digits of scikit-learn: the part to train on and the part that is held out.

1797 real 8x8 grey images in ten classes (UCI "Optical Recognition of Handwritten Digits"). The
held-out 40 % train nothing; they are what the `.npz` files hold for calibration and evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]
    Labels: TypeAlias = NDArray[np.int64]

HELD_OUT = 0.4


@dataclass(frozen=True)
class Part:
    """Images float32 [N, 1, 8, 8] in 0..1 and their labels int64 [N]."""

    images: Floats
    labels: Labels


@dataclass(frozen=True)
class DataFile:
    """An `.npz` of held-out samples: its name, the array it holds, and the layout of that array."""

    name: str
    key: str
    layout: Callable[[Floats], Floats]

    def save(self, folder: Path, part: Part) -> None:
        """Write `key` and `labels`, compressed; readable without pickle."""
        arrays: dict[str, Any] = {self.key: self.layout(part.images), "labels": part.labels}
        np.savez_compressed(folder / self.name, allow_pickle=False, **arrays)


NCHW = DataFile("digits.npz", "image", lambda images: images)
NHWC = DataFile("digits_nhwc.npz", "image", lambda images: images.transpose(0, 2, 3, 1).copy())
ROWS = DataFile("digits_rows.npz", "rows", lambda images: images[:, 0])


def load() -> tuple[Part, Part]:
    """The training part and the held-out part, the same for every model and every run."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    train, held, train_labels, held_labels = train_test_split(
        images, labels.astype(np.int64), test_size=HELD_OUT, random_state=0, stratify=labels
    )
    return Part(train, train_labels), Part(held, held_labels)


def shifted(images: Floats, generator: np.random.Generator) -> Floats:
    """Each image [N, 1, 8, 8] moved by -1, 0 or 1 pixels both ways, zeros where nothing was."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    down, right = generator.integers(0, 3, (2, len(images), 1))
    axis = np.arange(8)
    rows, columns = (down + axis)[:, :, None], (right + axis)[:, None, :]
    moved: Floats = padded[np.arange(len(images))[:, None, None], 0, rows, columns][:, None]
    return moved
