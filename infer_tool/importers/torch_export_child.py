"""Opening a .pt2; child side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from infer_runtime.errors import InferError, ModelError
from infer_tool.importers.torch_archive import no_pickled_code
from infer_tool.importers.torch_program import Opened, convert
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def open_source(source: str, options: Mapping[str, Any], folder: Path) -> Opened:  # noqa: ARG001
    """Load the program, convert it, and keep it as the reference."""
    try:
        with quiet(), no_pickled_code(torch):
            program = torch.export.load(source)
    except Exception as error:
        # A damaged archive fails in as many ways as it has parts; none of them is ours to handle.
        why = str(error) if isinstance(error, InferError) else reason(error)
        raise ModelError(f"{source}: torch cannot read it: {why}") from error
    # Texts from the file that torch would execute; the comparison notices what they would refuse.
    program._guards_code = []  # type: ignore[attr-defined]
    model = convert(program, source)
    return Opened(model, _caller(program, source, len(model.graph.inputs)), "torch.export")


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
