"""From an ExportedProgram to onnx_ir, and the program itself as the reference."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers import Imported
from infer_tool.importers.normalise import OPSET, normalise
from infer_tool.quiet import quiet
from infer_tool.reason import reason
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from infer_tool.importers import Outputs

Shape = tuple[int | str, ...]


def import_program(
    program: Any,
    source: str,
    kind: str,
    path: Path | None,
    *,
    names: Sequence[str] = (),
    shapes: Sequence[Shape] = (),
) -> Imported:
    """Convert with torch's own exporter and check what it says it did.

    Args:
        program: a torch.export.ExportedProgram.
        source: what the user called it.
        kind: of the source.
        path: of the source's file, if there is one.
        names: of the inputs, instead of the program's own.
        shapes: of the inputs; a dimension that is a name gives its name to the program's symbol.

    Raises:
        ModelError: the exporter fails, naming its reason, or reaches another opset.

    """
    import torch

    try:
        with quiet():
            exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    except Exception as error:
        # torch raises classes of many packages here; all of them mean that it cannot convert.
        raise ModelError(f"{source}: torch cannot convert it: {reason(error)}") from error
    assert exported is not None
    model: ir.Model = exported.model
    if opset(model) != OPSET:
        raise ModelError(f"{source}: torch wrote opset {opset(model)}, asked for {OPSET}")
    for value, name in zip(model.graph.inputs, names, strict=False):
        value.name = name
    if shapes:
        _name_dimensions(model, shapes)
    _name_outputs(model, program)
    model = normalise(model, source)
    return Imported(model, kind, path, _ProgramReference(program, model, source))


def _name_dimensions(model: ir.Model, shapes: Sequence[Shape]) -> None:
    """torch calls a dynamic dimension s77; the user called it batch."""
    names: dict[str, str] = {}
    for value, shape in zip(model.graph.inputs, shapes, strict=True):
        for dimension, wanted in zip(value.shape or (), shape, strict=True):
            if isinstance(dimension, ir.SymbolicDim) and isinstance(wanted, str):
                names[str(dimension.value)] = wanted
    values = [*model.graph.inputs, *(v for n in model.graph.all_nodes() for v in n.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(d, names) for d in value.shape])


def _renamed(dimension: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(dimension, int) or dimension.value is None:
        return dimension if isinstance(dimension, int) else None
    return re.sub(r"\w+", lambda match: names.get(match[0], match[0]), dimension.value)


def _name_outputs(model: ir.Model, program: Any) -> None:
    """A module that returns a dict names its outputs; those names stay."""
    from torch.utils import _pytree as pytree

    spec = program.call_spec.out_spec
    leaves, _ = pytree.tree_flatten_with_path(
        pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    )
    paths = [p for p, _ in leaves]
    outputs = model.graph.outputs
    taken = {v.name for v in model.graph.inputs} | set(model.graph.initializers)
    if len(paths) != len(outputs) or any(v.is_graph_input() for v in outputs):
        return
    for value, path in zip(outputs, paths, strict=True):
        keys = [getattr(step, "key", getattr(step, "name", None)) for step in path]
        name = ".".join(str(key) for key in keys)
        if keys and all(isinstance(key, str) for key in keys) and name not in taken:
            value.name = name
            taken.add(name)


class _ProgramReference:
    """Runs the exported program on NumPy feeds."""

    def __init__(self, program: Any, model: ir.Model, source: str) -> None:
        import torch
        from torch.utils import _pytree as pytree

        self._program, self._source = program, source
        self._inputs = [v.name or "" for v in model.graph.inputs]
        self._outputs = [v.name or "" for v in model.graph.outputs]
        self._leaves, self._spec = pytree.tree_flatten(program.example_inputs)
        self._slots = [i for i, v in enumerate(self._leaves) if isinstance(v, torch.Tensor)]
        self._module: Any = None
        if len(self._slots) != len(self._inputs):
            raise ModelError(
                f"{source}: takes {len(self._slots)} tensors, but its graph has "
                f"{len(self._inputs)} inputs; export it with tensors as its only inputs"
            )

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        import torch
        from torch.utils import _pytree as pytree

        leaves = list(self._leaves)
        for slot, name in zip(self._slots, self._inputs, strict=True):
            leaves[slot] = _tensor(feeds[name])
        arguments, keywords = pytree.tree_unflatten(leaves, self._spec)
        try:
            if self._module is None:
                self._module = self._program.module()
            with torch.no_grad():
                result = self._module(*arguments, **keywords)
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            raise ModelError(f"{self._source}: torch cannot run it: {reason(error)}") from error
        values = [_array(v) for v in pytree.tree_leaves(result) if isinstance(v, torch.Tensor)]
        return dict(zip(self._outputs, values, strict=True))


def _tensor(array: Any) -> Any:
    import torch

    if array.dtype.name == "bfloat16":  # NumPy has no such type: its bits travel as integers
        return torch.from_numpy(array.view("uint16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _array(tensor: Any) -> Any:
    import torch

    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.uint16).numpy().view(ir.DataType.BFLOAT16.numpy())
    return plain.numpy()
