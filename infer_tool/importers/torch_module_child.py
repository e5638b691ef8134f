"""Building and exporting the module that a factory returns; child side."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from infer_runtime.errors import InferError, ModelError, UsageError
from infer_tool.data.function import load_function
from infer_tool.importers.state_dict import load_state_dict
from infer_tool.importers.torch_fake_quantised import freeze_fake_quantisers
from infer_tool.importers.torch_inputs import InputSpec, dynamic_shapes, examples, parse_input
from infer_tool.importers.torch_program import Opened, convert
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HALVES = (torch.float16, torch.bfloat16)


def open_source(source: str, options: Mapping[str, Any], folder: Path) -> Opened:  # noqa: ARG001
    """Call the factory, load weights, pick the part, export and convert."""
    specs = [parse_input(text) for text in options["input"]]
    module = _build(source)
    if options["state_dict"]:
        load_state_dict(module, options["state_dict"], source)
    module = submodule(module, options["submodule"], source).eval()
    freeze_fake_quantisers(module)
    return export_module(module, specs, source)


def export_module(module: Any, specs: list[InputSpec], source: str) -> Opened:
    """Export and convert a module of which the inputs are known; the module is the reference."""
    by_name = _named_like_parameters(module, specs, source)
    widened = _widen(module, specs)
    names, shapes = [s.name for s in specs], [s.shape for s in specs]
    program = _export(module, specs, by_name, source)

    def call(tensors: list[Any]) -> Any:
        if by_name:
            return module(**dict(zip(names, tensors, strict=True)))
        return module(*tensors)

    route = f"torch.export{widened}"
    return Opened(convert(program, source, names, shapes), call, route)


def _build(source: str) -> Any:
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
    return module


def submodule(module: Any, path: str, source: str) -> Any:
    """The part of a module that --submodule names.

    Raises:
        UsageError: there is none of this name.

    """
    for step in path.split(".") if path else ():
        parts = dict(module.named_children())
        if step not in parts:
            raise UsageError(f"--submodule {path}: {source} has {', '.join(parts) or 'no parts'}")
        module = parts[step]
    return module


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


def _widen(module: Any, specs: list[InputSpec]) -> str:
    """Half-precision weights compute in float32, exactly, unless an input asks for float16.

    Engines differ in how they round halves (and have none of bfloat16 on processors): only in
    float32 can the result be proven. `quantize --scheme fp16` makes them small again, measured.
    """
    tensors = [*module.parameters(), *module.buffers()]
    found = {str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype in HALVES}
    kept = any(spec.dtype == np.float16 for spec in specs)
    if not found or (kept and "bfloat16" not in found):
        return ""
    module.float()
    return f", {' and '.join(sorted(found))} weights widened to float32"


def _export(module: Any, specs: list[InputSpec], by_name: bool, source: str) -> Any:
    given = examples(specs)
    dynamic = dynamic_shapes(specs)
    names = [s.name for s in specs]
    arguments = () if by_name else tuple(given)
    keywords = dict(zip(names, given, strict=True)) if by_name else None
    shapes: Any = dynamic
    if dynamic is not None and not by_name:
        shapes = tuple(dynamic.values())
        if any(p.kind == p.VAR_POSITIONAL for p in _parameters(module)):
            shapes = (shapes,)
    try:
        with quiet():
            return torch.export.export(module, arguments, keywords, dynamic_shapes=shapes)
    except Exception as error:
        # torch raises classes of many packages here; all of them mean that it cannot export.
        raise ModelError(f"{source}: torch cannot export it: {explained(error)}") from error


def _parameters(module: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(module.forward).parameters.values())


def explained(error: Exception) -> str:
    """The reason, and what to try where it is a dimension that turned out not to be free."""
    text = reason(error)
    if "onstraint" not in text and "specializ" not in text.lower():
        return text
    details = [line.strip(" -") for line in str(error).splitlines() if line.startswith("  - ")]
    why = details[0][:300] if details else text
    return f"{why}; state that dimension as a number in --input"
