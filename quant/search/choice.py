"""What can be decided for a layer, and a decision for all of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    Assignment = Mapping[str, "Choice"]

Compute = Literal["int8", "dynamic", "float"]
FLOAT_BITS, HALF_BITS = 32, 16


@dataclass(frozen=True, order=True)
class Choice:
    """How the product is computed, and the bits of its weights; 32 are float32, 16 float16.

    int8: ranges of activations from calibration. dynamic: from the values of each run. float: the
    weights alone are stored short.
    """

    compute: Compute
    bits: int

    def __str__(self) -> str:
        """`int8 w4`, `float w8`, `float`."""
        return self.compute if self.bits == FLOAT_BITS else f"{self.compute} w{self.bits}"


@dataclass(frozen=True)
class Layer:
    """A weight and the nodes that read it.

    size: elements; channels: numbers of scales; bits: what its weights can have by way of
    computing, the most first.
    """

    name: str
    nodes: tuple[str, ...]
    op: str
    size: int
    channels: int
    bits: Mapping[Compute, tuple[int, ...]]


def digest(assignment: Assignment) -> str:
    """A name for a decision: the same for the same one, in whatever order."""
    text = "\n".join(f"{name}={assignment[name]}" for name in sorted(assignment))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe(assignment: Assignment) -> str:
    """`12 int8 w8, 3 int8 w4, 1 float`, the most frequent first."""
    counts = Counter(str(choice) for choice in assignment.values())
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)
