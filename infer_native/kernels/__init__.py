"""Kernels: functions from a layer to the body of a C function, one family per file.

A body reads its inputs as x0, x1, ..., writes y0, y1, ..., finds tables of its own (constants
that the kernel made) as t0, t1, ... and scratch memory as s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from infer_native.program import Array, Layer

    Kernel = Callable[[Layer], "Code"]

FAMILIES = (
    "elementwise", "movement", "gather", "reduce", "pool", "conv", "matmul", "norm", "recurrent",
    "quantized", "resize", "integer", "plain_binary", "halves",
)  # fmt: skip


@dataclass
class Code:
    """The body of a function; `helpers` are functions that it calls, by name."""

    body: str
    tables: list[Array] = field(default_factory=list)
    scratch: int = 0
    helpers: dict[str, str] = field(default_factory=dict)


F = TypeVar("F", bound="Callable[[Layer], Code]")
_KERNELS: dict[str, Kernel] = {}


def kernel(*ops: str) -> Callable[[F], F]:
    """Register the generic kernel of operators."""

    def register(function: F) -> F:
        for op in ops:
            _KERNELS[op] = function
        return function

    return register


@cache
def _load() -> None:
    for family in FAMILIES:
        import_module(f"infer_native.kernels.{family}")


def find_kernel(op: str) -> Kernel | None:
    """The generic kernel of an operator, None when there is none."""
    _load()
    return _KERNELS.get(op)


def claimed_ops() -> list[str]:
    """Operators of ONNX that the emitter claims; those that only the emitter knows are left out."""
    _load()
    views = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Constant")
    return sorted({*(op for op in _KERNELS if not op.startswith("_")), *views})
