"""Which function computes which operator, from which opset on."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Kernel = Callable[..., Any]

FAMILIES = (
    "activation", "conv", "elementwise", "gather", "matmul", "norm", "pool", "quantized", "reduce",
    "shape",
)  # fmt: skip

_KERNELS: dict[tuple[str, str], list[tuple[int, Kernel]]] = {}


def op(*names: str, since: int = 1, domain: str = "") -> Callable[[Kernel], Kernel]:
    """Register a kernel for operators, valid from opset `since` until a later one takes over.

    A kernel takes the inputs by position (None for an absent optional one) and the attributes by
    keyword, and returns an array, or a tuple of arrays for several outputs.
    """

    def register(kernel: Kernel) -> Kernel:
        for name in names:
            versions = _KERNELS.setdefault((domain, name), [])
            versions.append((since, kernel))
            versions.sort(key=lambda version: -version[0])
        return kernel

    return register


@cache
def _load() -> None:
    for family in FAMILIES:
        import_module(f"infer_runtime.ops.{family}")


def find_kernel(domain: str, name: str, opset: int) -> Kernel | None:
    """The newest kernel not newer than `opset`; None when there is none."""
    _load()
    for since, kernel in _KERNELS.get((_standard(domain), name), ()):
        if since <= opset:
            return kernel
    return None


def known_ops() -> list[tuple[str, str]]:
    """All (domain, operator) pairs with a kernel of our own."""
    _load()
    return sorted(_KERNELS)


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
