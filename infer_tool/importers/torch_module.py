"""PyTorch modules from code that the user names: package.module:factory or file.py:factory."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from infer_runtime.errors import InferError, ModelError, UsageError
from infer_tool.data.function import load_function
from infer_tool.extras import require
from infer_tool.importers.torch_common import import_program
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from infer_tool.importers import Imported, ImportOptions

EXAMPLE_SIZE = 2  # torch.export treats dynamic dimensions of size 0 and 1 as fixed
SPEC = re.compile(r"^(?P<name>\w+):(?P<shape>\w*)(?::(?P<dtype>\w+))?$")
KINDS = "fiub"


@dataclass(frozen=True)
class InputSpec:
    """An input as the user states it; a dimension that is a name is dynamic."""

    name: str
    shape: tuple[int | str, ...]
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


def load(source: str, options: ImportOptions) -> Imported:
    """Call the factory, export the module it returns, convert.

    Raises:
        UsageError: the code cannot be found or fails, returns no module, or --input is missing.
        ModelError: torch cannot export the module.
        MissingExtraError: torch is not installed.

    """
    torch = require("torch", "torch")
    if not options.input:
        raise UsageError(f"{source}: state its inputs with --input name:1x3x224x224:float32")
    specs = [parse_input(text) for text in options.input]
    module = _build(torch, source)
    by_name = _named_like_parameters(module, specs, source)
    program = _export(torch, module, specs, by_name, source)
    return import_program(
        program,
        source,
        "torch",
        None,
        names=[s.name for s in specs],
        shapes=[s.shape for s in specs],
    )


def _build(torch: Any, source: str) -> Any:
    factory = load_function(source)
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
    return module.eval()


def _named_like_parameters(module: Any, specs: list[InputSpec], source: str) -> bool:
    """Whether the inputs are parameters of `forward`; if none is, they go by position.

    Raises:
        UsageError: only some of them are, which is a slip of the pen.

    """
    parameters = inspect.signature(module.forward).parameters
    known = [spec.name in parameters for spec in specs]
    if any(known) and not all(known):
        wrong = specs[known.index(False)].name
        raise UsageError(f"--input {wrong}: {source} takes {', '.join(parameters)}")
    return all(known)


def _export(torch: Any, module: Any, specs: list[InputSpec], by_name: bool, source: str) -> Any:
    generator = torch.Generator().manual_seed(0)
    examples = {s.name: _example(torch, s, generator) for s in specs}
    dims = {d: torch.export.Dim(d) for s in specs for d in s.shape if isinstance(d, str)}
    dynamic = {
        s.name: {i: dims[d] for i, d in enumerate(s.shape) if isinstance(d, str)} for s in specs
    }
    arguments = () if by_name else tuple(examples.values())
    keywords = examples if by_name else None
    shapes: Any = dynamic if by_name else tuple(dynamic.values())
    try:
        with quiet():
            return torch.export.export(
                module, arguments, keywords, dynamic_shapes=shapes if dims else None
            )
    except Exception as error:
        # torch raises classes of many packages here; all of them mean that it cannot export.
        raise ModelError(f"{source}: torch cannot export it: {reason(error)}") from error


def _example(torch: Any, spec: InputSpec, generator: Any) -> Any:
    shape = tuple(d if isinstance(d, int) else EXAMPLE_SIZE for d in spec.shape)
    kind = getattr(torch, spec.dtype.name)
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator).to(kind)
    return torch.zeros(shape, dtype=kind)
