"""Which function computes which operator, from which opset on."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Kernel = Callable[..., Any]

F = TypeVar("F", bound="Callable[..., Any]")

FAMILIES = (
    "activation", "cast", "control", "conv", "detection", "elementwise", "gather", "matmul",
    "norm", "pool", "quantized", "reduce", "resize", "rnn", "shape",
)  # fmt: skip

_KERNELS: dict[tuple[str, str], list[tuple[int, Kernel]]] = {}


def op(*names: str, since: int = 1, domain: str = "") -> Callable[[F], F]:
    """Register a kernel for operators, valid from opset `since` until a later one takes over.

    A kernel takes the inputs by position (None for an absent optional one) and the attributes by
    keyword, and returns an array, or a tuple of arrays for several outputs.
    """

    def register(kernel: F) -> F:
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
    for since, kernel in _KERNELS.get((standard_domain(domain), name), ()):
        if since <= opset:
            return kernel
    return None


def known_ops() -> list[tuple[str, str]]:
    """All (domain, operator) pairs with a kernel of our own."""
    _load()
    return sorted(_KERNELS)


def standard_domain(domain: str) -> str:
    """`ai.onnx` is another name of the domain without a name."""
    return "" if domain == "ai.onnx" else domain
