"""MiniLM-L6 as a torch module whose parameters carry the names of its public weights (BERT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN, HEADS, LAYERS, WIDE, VOCABULARY, POSITIONS = 384, 12, 6, 1536, 30522, 512
EPSILON = 1e-12


class MiniLM(nn.Module):
    """(ids, mask) [batch, length] int64 -> sentence embeddings [batch, 384] of length one."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(VOCABULARY, HIDDEN),
                "position_embeddings": nn.Embedding(POSITIONS, HIDDEN),
                "token_type_embeddings": nn.Embedding(2, HIDDEN),
                "LayerNorm": nn.LayerNorm(HIDDEN, EPSILON),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(HIDDEN, HIDDEN)})

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embed tokens, run the layers, average over the tokens that count."""
        table = self.embeddings
        places = torch.arange(ids.shape[1])[None]
        x = table["word_embeddings"](ids) + table["position_embeddings"](places)
        x = table["LayerNorm"](x + table["token_type_embeddings"](torch.zeros_like(ids)))
        hidden = (1.0 - mask[:, None, None, :].float()) * -1e9
        for layer in self.encoder["layer"]:
            x = layer(x, hidden)
        weights = mask[:, :, None].float()
        mean = (x * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def residual(width: int) -> nn.ModuleDict:
    """The projection and the normalisation at the end of a block."""
    return nn.ModuleDict(
        {"dense": nn.Linear(width, HIDDEN), "LayerNorm": nn.LayerNorm(HIDDEN, EPSILON)}
    )


class Layer(nn.Module):
    """Self-attention, then two dense layers, each with a residual sum before its norm."""

    def __init__(self) -> None:
        super().__init__()
        names = ("query", "key", "value")
        projections = nn.ModuleDict({n: nn.Linear(HIDDEN, HIDDEN) for n in names})
        self.attention = nn.ModuleDict({"self": projections, "output": residual(HIDDEN)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(HIDDEN, WIDE)})
        self.output = residual(WIDE)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """[batch, length, hidden] -> the same; `hidden` is added to the scores."""
        q, k, v = (self._heads(self.attention["self"][n](x)) for n in ("query", "key", "value"))
        scores = q @ k.transpose(2, 3) / (HIDDEN // HEADS) ** 0.5 + hidden
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        end = self.attention["output"]
        x = end["LayerNorm"](end["dense"](mixed) + x)
        wide = nn.functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](wide) + x)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (HEADS, HIDDEN // HEADS)).transpose(1, 2)
