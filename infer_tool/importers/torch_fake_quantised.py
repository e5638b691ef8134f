"""Modules of quantisation-aware training, as torch.ao prepares them; child side."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators

DECOMPOSED = torch.ops.quantized_decomposed


def freeze_fake_quantisers(module: Any) -> None:
    """Put fixed scales in the place of observers, which torch would export as nodes that learn.

    What is left quantises and dequantises, which the exporter writes as ONNX has it.
    """
    for name, child in list(module.named_children()):
        if hasattr(child, "fake_quant_enabled") and hasattr(child, "calculate_qparams"):
            setattr(module, name, _frozen(child))
        else:
            freeze_fake_quantisers(child)


def _frozen(quantiser: Any) -> Any:
    if not bool(quantiser.fake_quant_enabled[0]):
        return torch.nn.Identity()
    if quantiser.is_per_channel:
        return _PerChannel(quantiser)
    return _PerTensor(quantiser)


def _range(quantiser: Any) -> tuple[int, int, int, int]:
    """The range in use, and that of the type: ONNX saturates at the latter only."""
    observer = quantiser.activation_post_process
    least, most = observer.quant_min, observer.quant_max
    return (least, most, 0, 255) if least >= 0 else (least, most, -128, 127)


class _PerTensor(torch.nn.Module):
    def __init__(self, quantiser: Any) -> None:
        super().__init__()
        self.scale, self.zero = float(quantiser.scale[0]), int(quantiser.zero_point[0])
        self.least, self.most, *self.limits = _range(quantiser)

    def forward(self, x: Any) -> Any:
        if [self.least, self.most] != self.limits:
            low, high = (self.least - self.zero) * self.scale, (self.most - self.zero) * self.scale
            x = torch.clamp(x, low, high)
        how = (self.scale, self.zero, *self.limits, _dtype(self.limits))
        return DECOMPOSED.dequantize_per_tensor(DECOMPOSED.quantize_per_tensor(x, *how), *how)


class _PerChannel(torch.nn.Module):
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, quantiser: Any) -> None:
        super().__init__()
        self.register_buffer("scale", quantiser.scale.detach().clone())
        self.register_buffer("zero", quantiser.zero_point.detach().clone().to(torch.int32))
        self.axis: int = quantiser.ch_axis
        self.least, self.most, *self.limits = _range(quantiser)

    def forward(self, x: Any) -> Any:
        if [self.least, self.most] != self.limits:
            shape = [-1 if i == self.axis else 1 for i in range(x.dim())]
            scale, zero = self.scale.view(shape), self.zero.view(shape)
            low, high = (self.least - zero) * scale, (self.most - zero) * scale
            x = torch.minimum(torch.maximum(x, low), high)
        how = (self.scale, self.zero, self.axis, *self.limits, _dtype(self.limits))
        return DECOMPOSED.dequantize_per_channel(DECOMPOSED.quantize_per_channel(x, *how), *how)


def _dtype(limits: list[int]) -> torch.dtype:
    return torch.uint8 if limits[0] == 0 else torch.int8
