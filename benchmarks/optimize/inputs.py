"""Inputs that look like real ones: text, photographs and sound, drawn with a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

SEED = 0
SIZES = {
    "ch_PP-OCRv4_det_infer": {"x": (1, 3, 320, 320)},
    "ch_PP-OCRv4_rec_infer": {"x": (1, 3, 48, 320)},
    "ch_ppocr_mobile_v2.0_cls_infer": {"x": (1, 3, 48, 192)},
    "efficientnet_lite0": {"image": (1, 3, 224, 224)},
    "silero_vad": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_16k_op15": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_half": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_op18_ifless": {"input": (1, 576), "state": (2, 1, 128)},
    "silero_vad_16k_sequence": {"input": (8, 576)},
    "nmp": {"serving_default_input_2:0": (1, 43844, 1)},
    "tiny_gpt": {"tokens": (2, 48)},
    "minilm_l6": {"ids": (2, 24), "mask": (2, 24)},
}
# The seeded sampling rate of our own proof is not 16000, and another branch wants other sizes.
PROOF_SIZES = {**SIZES, "silero_vad": {"input": (1, 288), "state": (2, 1, 128)}}


def feeds(stem: str, inputs: Any) -> dict[str, np.ndarray]:
    """One array for each input of an ONNX Runtime session."""
    sizes = SIZES.get(stem, {})
    made = {}
    for value in inputs:
        open_size = [d if isinstance(d, int) else 1 for d in value.shape]
        made[value.name] = _make(value.name, value.type, sizes.get(value.name, open_size))
    return made


def _make(name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(SEED)
    if kind == "tensor(int64)":
        if len(shape) == 0:
            return np.array(16000, np.int64)
        high = 2 if name == "mask" else 250
        return generator.integers(high // 2, high, shape)
    if len(shape) == 4:
        return _picture(shape)
    if name in ("state", "h", "c"):
        return np.zeros(shape, np.float32)
    return _sound(shape)


def _picture(shape: tuple[int, ...]) -> np.ndarray:
    """Lines of text over soft light, scaled to -1..1."""
    from PIL import Image, ImageDraw, ImageFont

    count, channels, height, width = shape
    image = Image.new("L", (width, height), 230)
    font, step = ImageFont.load_default(28), 44
    for line in range(max(1, height // step)):
        ImageDraw.Draw(image).text((6, 6 + line * step), "Total 42.50 due", fill=20, font=font)
    light = np.linspace(0.7, 1.0, width)[None, :] * np.linspace(0.9, 1.0, height)[:, None]
    gray = np.asarray(image, np.float32) / 255 * light
    return np.broadcast_to(gray * 2 - 1, (count, channels, height, width)).astype(np.float32)


def _sound(shape: tuple[int, ...]) -> np.ndarray:
    """A voice-like tone: harmonics of a gliding pitch, with breath."""
    generator = np.random.default_rng(SEED)
    length = int(np.prod(shape))
    time = np.arange(length) / 16000
    phase = 2 * np.pi * (140 * time + 30 * np.sin(2 * np.pi * time))
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    sound = 0.2 * voice + 0.01 * generator.normal(size=length)
    return sound.reshape(shape).astype(np.float32)
