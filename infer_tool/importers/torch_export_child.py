"""Opening a .pt2; child side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.ao.quantization.fx._decomposed  # registers operators of quantised programs
from torch.utils import _pytree as pytree

from infer_runtime.errors import InferError, ModelError, UsageError
from infer_tool.importers.torch_archive import no_pickled_code
from infer_tool.importers.torch_inputs import InputSpec, parse_input
from infer_tool.importers.torch_program import Opened, convert, name_dimensions
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def open_source(source: str, options: Mapping[str, Any], folder: Path) -> Opened:  # noqa: ARG001
    """Load the program, convert it, and keep it as the reference.

    The file does not hold the names of its dynamic dimensions: --input may give them again.
    """
    program = read_program(source)
    model = convert(program, source)
    specs = {s.name: s for s in map(parse_input, options["input"])}
    if specs:
        name_dimensions(model, [_shape(value, specs, source) for value in model.graph.inputs])
    return Opened(model, _caller(program, source, len(model.graph.inputs)), "torch.export")


def read_program(source: str) -> Any:
    """The program, without its guards; ModelError for whatever torch cannot read."""
    try:
        with quiet(), no_pickled_code(torch):
            program = torch.export.load(source)
    except Exception as error:
        # A damaged archive fails in as many ways as it has parts; none of them is ours to handle.
        why = str(error) if isinstance(error, InferError) else reason(error)
        raise ModelError(f"{source}: torch cannot read it: {why}") from error
    # Texts from the file that torch would execute; the comparison notices what they would refuse.
    program._guards_code = []
    return program


def _shape(value: Any, specs: Mapping[str, InputSpec], source: str) -> tuple[int | str, ...]:
    """What --input says of an input; UsageError where the program says otherwise."""
    spec, known = specs.get(value.name), list(value.shape)
    if spec is None:
        raise UsageError(f"{source}: has an input {value.name}; name it with --input as well")
    same = len(known) == len(spec.shape) and all(
        not isinstance(size, int) or size == wanted
        for size, wanted in zip(known, spec.shape, strict=True)
    )
    if not same:
        raise UsageError(f"--input {spec.name}: {source} has {'x'.join(map(str, known))}")
    return spec.shape


def _caller(program: Any, source: str, inputs: int) -> Any:
    """The program as a function of its tensors; what else its example holds stays as it is."""
    leaves, spec = pytree.tree_flatten(program.example_inputs)
    slots = [i for i, v in enumerate(leaves) if isinstance(v, torch.Tensor)]
    if len(slots) != inputs:
        raise ModelError(
            f"{source}: takes {len(slots)} tensors, but its graph has {inputs} inputs; "
            "export it with tensors as its only inputs"
        )
    module = program.module()

    def call(tensors: list[Any]) -> Any:
        given = list(leaves)
        for slot, tensor in zip(slots, tensors, strict=True):
            given[slot] = tensor
        arguments, keywords = pytree.tree_unflatten(given, spec)
        return module(*arguments, **keywords)

    return call
