"""Inputs as the user states them, for sources that do not state their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Shape = tuple[int | str, ...]

# For dynamic dimensions: torch.export treats those of size 0 and 1 as fixed.
EXAMPLE_SIZES = (2, 16, 64, 256, 1024)
SPEC = re.compile(r"^(?P<name>[\w./-]+):(?P<shape>\w*)(?::(?P<dtype>\w+))?$")
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


def examples(specs: Sequence[InputSpec], call: Callable[..., Any]) -> list[Any]:
    """Seeded tensors of these shapes, the smallest on which the module runs.

    A picture of 2 x 2 is too small for most convolutions: dynamic dimensions grow until it runs,
    but not the first ones, which are batches.

    Raises:
        Exception: what the module raises on the smallest of them, when it runs on none.

    """
    import torch

    first = {spec.shape[0] for spec in specs if spec.shape}
    failure: Exception | None = None
    for size in EXAMPLE_SIZES:
        generator = torch.Generator().manual_seed(0)
        found = [sized(spec, _sizes(spec, first, size), generator) for spec in specs]
        try:
            with torch.no_grad():
                call(*found)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised in the end
            failure = failure or error
        else:
            return found
    assert failure is not None
    raise failure


def _sizes(spec: InputSpec, first: set[int | str], size: int) -> list[int]:
    return [
        d if isinstance(d, int) else EXAMPLE_SIZES[0] if d in first else size for d in spec.shape
    ]


def sized(spec: InputSpec, sizes: Sequence[int], generator: Any) -> Any:
    """A seeded tensor; `sizes` count for dynamic dimensions, integers are zeros."""
    import torch

    shape = tuple(
        d if isinstance(d, int) else size for d, size in zip(spec.shape, sizes, strict=True)
    )
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
    return {
        s.name: {i: dims[d] for i, d in enumerate(s.shape) if isinstance(d, str)} for s in specs
    }
