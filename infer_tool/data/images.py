"""Folders of images, decoded one at a time."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError
from infer_tool.data.checks import check_sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from infer_runtime import TensorInfo

    Array = np.ndarray[Any, Any]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm"}
LAYOUTS = ("nchw", "nhwc")
KEYS = ("resize", "crop", "mean", "std", "layout", "channels")


@dataclass(frozen=True)
class Preprocess:
    """resize the short side, crop the centre, (pixel - mean) / std, order the axes."""

    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: str = "nchw"
    channels: str = "rgb"

    def apply(self, image: Image) -> Array:
        """A float32 sample without batch axis."""
        image = image.convert("L" if self.channels == "gray" else "RGB")
        if self.resize is not None:
            image = _resize_short(image, self.resize)
        if self.crop is not None:
            image = _crop_centre(image, self.crop)
        pixels = np.asarray(image, np.float32)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if self.channels == "bgr":
            pixels = pixels[..., ::-1]
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        sample: Array = (pixels - mean) / std
        return sample.transpose(2, 0, 1) if self.layout == "nchw" else sample


def parse_preprocess(text: str | None) -> Preprocess:
    """'resize=256 crop=224 mean=127 std=128 layout=nchw channels=rgb'; mean and std in pixels."""
    values: dict[str, Any] = {}
    for part in (text or "").split():
        key, _, value = part.partition("=")
        if key not in KEYS or not value:
            raise UsageError(f"--preprocess {part!r}: expected one of {'=, '.join(KEYS)}=")
        values[key] = _parse_value(key, value)
    return Preprocess(**values)


def _parse_value(key: str, value: str) -> Any:
    try:
        if key in ("resize", "crop"):
            return int(value)
        if key in ("mean", "std"):
            numbers = tuple(float(v) for v in value.split(","))
            if len(numbers) not in (1, 3) or (key == "std" and 0 in numbers):
                raise UsageError(
                    f"--preprocess {key}={value}: expected one or three numbers, not 0"
                )
            return numbers
    except ValueError as error:
        raise UsageError(f"--preprocess {key}={value}: expected a number") from error
    known = LAYOUTS if key == "layout" else ("rgb", "bgr", "gray")
    if value not in known:
        raise UsageError(f"--preprocess {key}={value}: expected {' or '.join(known)}")
    return value


@dataclass(frozen=True)
class ImageSamples:
    """Files and how each becomes an input."""

    files: tuple[Path, ...]
    labels: Array | None
    info: TensorInfo
    preprocess: Preprocess

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def read(self, index: int) -> dict[str, Array]:
        """Decode one image."""
        from PIL import Image, UnidentifiedImageError

        path = self.files[index]
        try:
            with Image.open(path) as image:
                value = self.preprocess.apply(image)
        except (UnidentifiedImageError, OSError) as error:
            raise UsageError(f"{path}: not a readable image ({error})") from error
        return {self.info.name: check_sample(path, self.info, value)}


def open_images(folder: Path, inputs: Sequence[TensorInfo], preprocess: str | None) -> ImageSamples:
    """Class sub-folders in the order of their names, or labels.csv (file,label), or no labels."""
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs)
        raise UsageError(f"{folder}: images feed one input; the model has {names}")
    parsed = parse_preprocess(preprocess)
    table = folder / "labels.csv"
    files, labels = _from_table(folder, table) if table.exists() else _from_folders(folder)
    return ImageSamples(tuple(files), labels, inputs[0], parsed)


def _from_table(folder: Path, table: Path) -> tuple[list[Path], Array | None]:
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise UsageError(f"{table}: expected a header file,label and at least one row")
    files = [folder / row["file"] for row in rows]
    for path in files:
        if not path.is_file():
            raise UsageError(f"{table}: names {path.name}, which is not there")
    try:
        labels = np.array([int(row["label"]) for row in rows])
    except ValueError as error:
        raise UsageError(f"{table}: a label is no class number ({error})") from error
    return files, labels


def _from_folders(folder: Path) -> tuple[list[Path], Array | None]:
    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    if not classes:
        return sorted(_images(folder)), None
    files, labels = [], []
    for number, part in enumerate(classes):
        found = sorted(_images(part))
        files += found
        labels += [number] * len(found)
    return files, np.array(labels)


def _images(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]


def _resize_short(image: Image, size: int) -> Image:
    from PIL.Image import Resampling

    factor = size / min(image.size)
    width, height = (round(side * factor) for side in image.size)
    return image.resize((width, height), Resampling.BILINEAR)


def _crop_centre(image: Image, size: int) -> Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
