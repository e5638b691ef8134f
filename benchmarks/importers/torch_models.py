"""Factories of PyTorch modules with seeded weights, for the table of importers."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import torch
from torch import nn

FACENET = Path.home() / ".cache/infertool/facenet_pytorch/facenet_pytorch"


def _seeded(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1)
    return module.eval()


class _Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(12, 24, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(48, 5)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> dict[str, torch.Tensor]:
        steps, last = self.gru(x, state)
        return {"classes": self.head(steps), "state_out": last}


def gru() -> nn.Module:
    """Two bidirectional layers with a state."""
    return _seeded(_Gru())


class _Block(nn.Module):
    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.causal, self.heads = causal, 4
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.before(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.after(x))


class _Vit(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.zeros(1, 17, width))
        self.blocks = nn.Sequential(*[_Block(width, causal=False) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit() -> nn.Module:
    """Patches, a class token, three blocks."""
    return _seeded(_Vit())


class _Gpt(nn.Module):
    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.words, self.place = nn.Embedding(200, width), nn.Embedding(64, width)
        self.blocks = nn.Sequential(*[_Block(width, causal=True) for _ in range(3)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 200, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        place = torch.arange(ids.shape[1], device=ids.device)
        return self.head(self.norm(self.blocks(self.words(ids) + self.place(place))))


def gpt() -> nn.Module:
    """Causal attention over a dynamic length."""
    return _seeded(_Gpt())


def decoder() -> nn.Module:
    """Transposed convolutions up to a picture."""
    return _seeded(
        nn.Sequential(
            nn.ConvTranspose2d(16, 24, 4, 2, 1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.ConvTranspose2d(24, 12, 3, 2, 1, output_padding=1, groups=4), nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(12, 3, 3, 1, 1, dilation=1), nn.Tanh(),
        )
    )  # fmt: skip


class _Cond(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> Any:
        return torch.cond(
            x.sum() > 0,
            lambda x: torch.relu(self.left(x)),
            lambda x: torch.tanh(self.right(x)) * 2,
            (x,),
        )


def cond() -> nn.Module:
    """A branch that depends on the data."""
    return _seeded(_Cond())


def bf16() -> nn.Module:
    """The vision transformer with weights in bfloat16."""
    return vit().to(torch.bfloat16)


def fake_quantised() -> nn.Module:
    """A small network after quantisation-aware training, as torch.ao prepares it."""
    from torch.ao import quantization as ao

    torch.manual_seed(0)
    net = nn.Sequential(
        ao.QuantStub(), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(),
        nn.Linear(8 * 12 * 12, 10),
    )  # fmt: skip
    net.qconfig = ao.get_default_qat_qconfig("x86")
    prepared = ao.prepare_qat(net.train())
    for _ in range(4):
        prepared(torch.randn(8, 3, 16, 16))
    return prepared.eval()


def _mtcnn(name: str) -> nn.Module:
    """A class of the wheel; its module imports packages that only its training needs."""
    tree = ast.parse((FACENET / "models/mtcnn.py").read_text())
    tree.body = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    scope: dict[str, Any] = {"nn": nn, "torch": torch}
    exec(compile(tree, name, "exec"), scope)  # noqa: S102
    return scope[name](pretrained=False)


def pnet() -> nn.Module:
    """MTCNN's proposals."""
    return _mtcnn("PNet")


def rnet() -> nn.Module:
    """MTCNN's refinement."""
    return _mtcnn("RNet")


def onet() -> nn.Module:
    """MTCNN's output."""
    return _mtcnn("ONet")


class _Residual(nn.Module):
    """Two convolutions of 3 x 3, and what goes round them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        shorter = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        whole = inputs == outputs
        self.round = nn.Identity() if whole else nn.Sequential(shorter, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.inner(x) + self.round(x))


def resnet18() -> nn.Module:
    """ResNet-18 for 1000 classes (He et al. 2016, "Deep Residual Learning", table 1)."""
    torch.manual_seed(0)
    widths = ((64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1),
              (256, 512, 2), (512, 512, 1))  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), *(_Residual(*w) for w in widths), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(512, 1000),
    ).eval()  # fmt: skip
