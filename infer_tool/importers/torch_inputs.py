"""Inputs as the user states them, for sources that do not state their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

Shape = tuple[int | str, ...]

EXAMPLE_SIZE = 2  # torch.export treats dynamic dimensions of size 0 and 1 as fixed
SPEC = re.compile(r"^(?P<name>\w+):(?P<shape>\w*)(?::(?P<dtype>\w+))?$")
KINDS = "fiub"


@dataclass(frozen=True)
class InputSpec:
    """An input as the user states it; a dimension that is a name is dynamic."""

    name: str
    shape: Shape
    dtype: np.dtype[Any]


def parse_input(text: str) -> InputSpec:
    """'x:1x3x224x224:float32', 'x:batchx16:int64', 'x::bool' for a scalar; default float32.

    A dynamic dimension's name must not hold an 'x', which separates dimensions.
    """
    match = SPEC.match(text)
    if not match:
        raise UsageError(f"--input {text!r}: expected name:1x3x224x224:float32")
    parts = match["shape"].split("x") if match["shape"] else []
    shape = tuple(int(part) if part.isdigit() else part for part in parts)
    if any(part in (0, "") for part in shape):
        raise UsageError(f"--input {text!r}: a dimension is empty or zero")
    try:
        dtype = np.dtype(match["dtype"] or "float32")
    except TypeError as error:
        raise UsageError(f"--input {text!r}: {match['dtype']!r} is no dtype") from error
    if dtype.kind not in KINDS:
        raise UsageError(f"--input {text!r}: {dtype.name} is no dtype of a tensor")
    return InputSpec(match["name"], shape, dtype)


def parse_inputs(source: str, texts: Sequence[str]) -> list[InputSpec]:
    """All of them.

    Raises:
        UsageError: there is none, or one is wrong.

    """
    if not texts:
        raise UsageError(
            f"{source}: state its inputs with --input name:1x3x224x224:float32; a dimension given "
            "as a name is dynamic"
        )
    return [parse_input(text) for text in texts]


def examples(specs: Sequence[InputSpec]) -> list[Any]:
    """Seeded tensors of these shapes; integers are zeros, which every embedding has."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return [_example(torch, spec, generator) for spec in specs]


def _example(torch: Any, spec: InputSpec, generator: Any) -> Any:
    shape = tuple(d if isinstance(d, int) else EXAMPLE_SIZE for d in spec.shape)
    kind = getattr(torch, spec.dtype.name)
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator).to(kind)
    return torch.zeros(shape, dtype=kind)


def dynamic_shapes(specs: Sequence[InputSpec]) -> dict[str, dict[int, Any]] | None:
    """What torch.export wants to know of dynamic dimensions, by input; None without any."""
    import torch

    dims = {d: torch.export.Dim(d) for s in specs for d in s.shape if isinstance(d, str)}
    if not dims:
        return None
    return {s.name: {i: dims[d] for i, d in enumerate(s.shape) if isinstance(d, str)} for s in specs}
