"""Building and exporting the module that a factory returns; child side."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes
from torch.utils import _pytree as pytree

from infer_runtime.errors import ModelError, UsageError
from infer_tool.importers import torch_legacy
from infer_tool.importers.factory import are_parameters, call_factory
from infer_tool.importers.state_dict import load_state_dict
from infer_tool.importers.torch_check import same
from infer_tool.importers.torch_fake_quantised import freeze_fake_quantisers
from infer_tool.importers.torch_inputs import InputSpec, dynamic_shapes, examples, parse_input
from infer_tool.importers.torch_program import Opened, convert, name_outputs
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# A suggestion of torch that leaves a dimension dynamic.
LIMIT = re.compile(r"\s*(\w+) = Dim\('\1', [^)]*\)$")
HALVES = (torch.float16, torch.bfloat16)


def open_source(source: str, options: Mapping[str, Any], folder: Path) -> Opened:
    """Call the factory, load weights, pick the part, export and convert."""
    specs = [parse_input(text) for text in options["input"]]
    module = _build(source)
    if options["state_dict"]:
        load_state_dict(module, options["state_dict"], source)
    module = submodule(module, options["submodule"], source).eval()
    freeze_fake_quantisers(module)
    return export_module(module, specs, source, folder)


def export_module(module: Any, specs: list[InputSpec], source: str, folder: Path) -> Opened:
    """Export and convert a module of which the inputs are known; the module is the reference.

    What torch.export cannot do with dynamic sizes (it unrolls recurrent layers, it refuses
    branches) goes through the legacy exporter, if that gets it right.
    """
    parameters = inspect.signature(module.forward).parameters
    by_name = are_parameters(parameters, [s.name for s in specs], source)
    widened = widen(module.requires_grad_(False), specs)
    positional = _Positional(module, [s.name for s in specs] if by_name else [])
    given = _examples(positional, specs, source)

    def call(tensors: list[Any]) -> Any:
        return positional(*tensors)

    try:
        model, route = _by_export(module, specs, given, by_name, source), "torch.export"
    except ModelError as error:
        try:
            model = torch_legacy.export(_Flat(positional), specs, given, folder)
            _rename_outputs(model, positional, given)
            model, route = same(model, call, specs, given, source), torch_legacy.ROUTE
        except Exception:  # noqa: BLE001 - the first error is the one that counts
            raise error from error.__cause__
    return Opened(model, call, route + widened)


class _Positional(torch.nn.Module):
    """A module that takes its tensors in the order of --input."""

    def __init__(self, module: Any, names: list[str]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *tensors: Any) -> Any:
        if self.names:
            return self.module(**dict(zip(self.names, tensors, strict=True)))
        return self.module(*tensors)


class _Flat(torch.nn.Module):
    """Its outputs as a flat tuple: tracing knows no dicts."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Any) -> Any:
        return tuple(pytree.tree_leaves(self.module(*tensors)))


def _rename_outputs(model: Any, module: Any, given: list[Any]) -> None:
    with torch.no_grad():
        leaves, _ = pytree.tree_flatten_with_path(module(*given))
    name_outputs(model, [path for path, _ in leaves])


def _examples(module: Any, specs: list[InputSpec], source: str) -> list[Any]:
    try:
        with quiet():
            return examples(specs, module)
    except Exception as error:
        # The user's own code: whatever it raises is the answer.
        raise ModelError(
            f"{source}: torch cannot export it: it does not run on these --input: {reason(error)}"
        ) from error


def _build(source: str) -> Any:
    module = call_factory(source)
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


def widen(module: Any, specs: list[InputSpec]) -> str:
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


def _by_export(
    module: Any, specs: list[InputSpec], given: list[Any], by_name: bool, source: str
) -> Any:
    names = [s.name for s in specs]
    arguments = () if by_name else tuple(given)
    keywords = dict(zip(names, given, strict=True)) if by_name else None
    shapes: Any = dynamic_shapes(specs)
    if shapes is not None and not by_name:
        shapes = tuple(shapes.values())
        if any(p.kind == p.VAR_POSITIONAL for p in _parameters(module)):
            shapes = (shapes,)
    try:
        with quiet():
            program = _exported(module, arguments, keywords, shapes)
    except Exception as error:
        # torch raises classes of many packages here; all of them mean that it cannot export.
        raise ModelError(f"{source}: torch cannot export it: {explained(error)}") from error
    return convert(program, source, names, [s.shape for s in specs])


def _exported(module: Any, arguments: Any, keywords: Any, shapes: Any) -> Any:
    """Export; where torch finds that a dimension has a largest value, with that limit."""
    try:
        return torch.export.export(module, arguments, keywords, dynamic_shapes=shapes)
    except torch._dynamo.exc.UserError as error:
        _, heading, text = str(error).partition("Suggested fixes:")
        fixes = text.strip().partition("\n\n")[0].splitlines()
        if not fixes or not all(LIMIT.match(line) for line in fixes):
            raise
        limited = refine_dynamic_shapes_from_suggested_fixes(
            "\n".join([heading, *fixes, ""]), shapes
        )
        return torch.export.export(module, arguments, keywords, dynamic_shapes=limited)


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
