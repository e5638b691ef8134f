"""PyTorch modules from code that the user names: package.module:factory or file.py:factory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import InferError, ModelError, UsageError
from infer_tool.data.function import load_function
from infer_tool.extras import require
from infer_tool.importers.normalise import quiet
from infer_tool.importers.torch_common import import_program, reason

if TYPE_CHECKING:
    from infer_tool.importers import Imported, ImportOptions

EXAMPLE_SIZE = 2  # torch.export treats dynamic dimensions of size 0 and 1 as fixed
SPEC = re.compile(r"^(?P<name>\w+):(?P<shape>[\w]+(?:x[\w]+)*)(?::(?P<dtype>\w+))?$")


@dataclass(frozen=True)
class InputSpec:
    """An input as the user states it; a dimension that is a name is dynamic."""

    name: str
    shape: tuple[int | str, ...]
    dtype: np.dtype[Any]


def parse_input(text: str) -> InputSpec:
    """'x:1x3x224x224:float32', 'x:batchx16:int64'; float32 when no dtype is given.

    A dynamic dimension's name must not hold an 'x', which separates dimensions.
    """
    match = SPEC.match(text)
    if not match:
        raise UsageError(f"--input {text!r}: expected name:1x3x224x224:float32")
    shape = tuple(int(d) if d.isdigit() else d for d in match["shape"].split("x"))
    try:
        dtype = np.dtype(match["dtype"] or "float32")
    except TypeError as error:
        raise UsageError(f"--input {text!r}: {match['dtype']!r} is no dtype") from error
    if any(d in (0, "") for d in shape):
        raise UsageError(f"--input {text!r}: a dimension is empty or zero")
    return InputSpec(match["name"], shape, dtype)


def load(source: str, options: ImportOptions) -> Imported:
    """Call the factory, export the module it returns, convert.

    Raises:
        UsageError: the code cannot be found or fails, returns no module, or --input is missing.
        ModelError: torch cannot export the module.
        MissingExtraError: torch is not installed.

    """
    torch = require("torch", "torch")
    factory = load_function(source)
    if not options.inputs:
        raise UsageError(f"{source}: state its inputs with --input name:1x3x224x224:float32")
    specs = [parse_input(text) for text in options.inputs]
    try:
        with quiet():
            module = factory()
    except InferError:
        raise
    except Exception as error:
        # The user's own code: whatever it raises is the answer.
        raise UsageError(f"{source}: the factory failed: {reason(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"{source}: returned {type(module).__name__}, expected a torch.nn.Module")
    program = _export(torch, module.eval(), specs, source)
    return import_program(program, source, "torch", None)


def _export(torch: Any, module: Any, specs: list[InputSpec], source: str) -> Any:
    generator = torch.Generator().manual_seed(0)
    examples = tuple(_example(torch, spec, generator) for spec in specs)
    dims = {d: torch.export.Dim(d) for s in specs for d in s.shape if isinstance(d, str)}
    dynamic = tuple(
        {i: dims[d] for i, d in enumerate(s.shape) if isinstance(d, str)} for s in specs
    )
    try:
        with quiet():
            return torch.export.export(module, examples, dynamic_shapes=dynamic if dims else None)
    except Exception as error:
        # torch raises classes of many packages here; all of them mean that it cannot export.
        raise ModelError(f"{source}: torch cannot export it: {reason(error)}") from error


def _example(torch: Any, spec: InputSpec, generator: Any) -> Any:
    shape = tuple(d if isinstance(d, int) else EXAMPLE_SIZE for d in spec.shape)
    kind = getattr(torch, spec.dtype.name)
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator).to(kind)
    return torch.zeros(shape, dtype=kind)
