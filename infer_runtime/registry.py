"""Which function computes which operator, from which opset on, for which array library."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Kernel = Callable[..., Any]
    Library = Literal["numpy", "torch", "any"]

F = TypeVar("F", bound="Callable[..., Any]")

FAMILIES = (
    "activation", "attention", "binary", "cast", "control", "conv", "detection", "elementwise",
    "gather", "matmul", "norm", "pool", "quantized", "reduce", "resize", "rnn", "shape",
)  # fmt: skip
TORCH_FAMILIES = ("torch_table",)
PRIVATE = "infertool"  # how domains begin whose operators no standard has


class Version(NamedTuple):
    """A kernel, the first opset it is valid for, and the array library it works on."""

    since: int
    kernel: Kernel
    library: Library


_KERNELS: dict[tuple[str, str], list[Version]] = {}


def op(
    *names: str, since: int = 1, domain: str = "", library: Library = "numpy"
) -> Callable[[F], F]:
    """Register a kernel for operators, valid from opset `since` until a later one takes over.

    A kernel takes the inputs by position (None for an absent optional one) and the attributes by
    keyword, and returns an array, or a tuple of arrays for several outputs. A kernel of library
    "any" works on the arrays of any library; a specific one goes before it.
    """

    def register(kernel: F) -> F:
        for name in names:
            versions = _KERNELS.setdefault((domain, name), [])
            versions.append(Version(since, kernel, library))
            versions.sort(key=lambda v: (-v.since, v.library == "any"))
        return kernel

    return register


@cache
def _load() -> None:
    for family in FAMILIES:
        import_module(f"infer_runtime.ops.{family}")


@cache
def _load_torch() -> None:
    for family in TORCH_FAMILIES:
        import_module(f"infer_runtime.ops.{family}")


def find_kernel(domain: str, name: str, opset: int, library: Library = "numpy") -> Kernel | None:
    """The newest kernel for NumPy that is not newer than `opset`; None when there is none.

    For library "torch": a kernel of the same version that works on tensors, or None.
    """
    _load()
    if library == "torch":
        _load_torch()
    versions = _KERNELS.get((standard_domain(domain), name), ())
    newest = max((v.since for v in versions if v.since <= opset), default=None)
    for version in versions:
        if version.since == newest and version.library in (library, "any"):
            return version.kernel
    return None


def known_ops() -> list[tuple[str, str]]:
    """All (domain, operator) pairs of files with a kernel of our own."""
    _load()
    return sorted(pair for pair in _KERNELS if not pair[0].startswith(PRIVATE))


def has_gradients(domain: str, name: str) -> bool:
    """Does the newest kernel of an operator of ours work on tensors too, with gradients?"""
    _load()
    _load_torch()
    versions = _KERNELS[domain, name]
    return any(v.since == versions[0].since and v.library != "numpy" for v in versions)


def standard_domain(domain: str) -> str:
    """`ai.onnx` is another name of the domain without a name."""
    return "" if domain == "ai.onnx" else domain
