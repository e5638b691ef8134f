"""From an ExportedProgram to onnx_ir, and whatever torch calls as the reference; child side."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime.errors import ModelError
from infer_tool.importers.normalise import OPSET
from infer_tool.importers.torch_missing import missing_operators
from infer_tool.quiet import quiet
from infer_tool.reason import reason
from passes.facts import opset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from infer_tool.importers import Outputs
    from infer_tool.importers.torch_inputs import Shape


@dataclass
class Opened:
    """A converted source and how torch runs it."""

    model: Any  # ir.Model, until it is saved
    call: Callable[[list[Any]], Any]  # tensors in the order of the model's inputs to any tree
    route: str = ""

    def reference(self, source: str) -> Callable[[Mapping[str, Any]], Outputs]:
        """The source as a function from arrays to arrays, both by name."""
        inputs = [v.name or "" for v in self.model.graph.inputs]
        outputs = [v.name or "" for v in self.model.graph.outputs]
        return _Reference(self.call, source, inputs, outputs)


def convert(
    program: Any, source: str, names: Sequence[str] = (), shapes: Sequence[Shape] = ()
) -> ir.Model:
    """Convert with torch's own exporter and check what it says it did.

    Args:
        program: a torch.export.ExportedProgram.
        source: what the user called it.
        names: of the inputs, instead of the program's own.
        shapes: of the inputs; a dimension that is a name gives its name to the program's symbol.

    Raises:
        ModelError: operators that ONNX has not, another reason of the exporter, another opset.

    """
    import torch

    try:
        with quiet():
            exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    except Exception as error:
        # torch raises classes of many packages here; all of them mean that it cannot convert.
        missing = missing_operators(program)
        raise ModelError(
            f"{source}: torch cannot convert it: {missing or reason(error)}"
        ) from error
    assert exported is not None
    model: ir.Model = exported.model
    if opset(model) != OPSET:
        raise ModelError(f"{source}: torch wrote opset {opset(model)}, asked for {OPSET}")
    for value, name in zip(model.graph.inputs, names, strict=False):
        value.name = name
    if shapes:
        name_dimensions(model, shapes)
    name_outputs(model, _output_paths(program))
    return model


def name_dimensions(model: ir.Model, shapes: Sequence[Shape]) -> None:
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


def _output_paths(program: Any) -> list[Any]:
    from torch.utils import _pytree as pytree

    spec = program.call_spec.out_spec
    leaves, _ = pytree.tree_flatten_with_path(
        pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    )
    return [path for path, _ in leaves]


def name_outputs(model: ir.Model, paths: Sequence[Any]) -> None:
    """A module that returns a dict names its outputs; those names stay."""
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


@dataclass(frozen=True)
class _Reference:
    """Runs on NumPy feeds whatever takes tensors."""

    call: Callable[[list[Any]], Any]
    source: str
    inputs: list[str]
    outputs: list[str]

    def __call__(self, feeds: Mapping[str, Any]) -> Outputs:
        import torch
        from torch.utils import _pytree as pytree

        try:
            with torch.no_grad(), quiet():
                result = self.call([_tensor(feeds[name]) for name in self.inputs])
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            raise ModelError(f"{self.source}: torch cannot run it: {reason(error)}") from error
        values = [_array(v) for v in pytree.tree_leaves(result) if isinstance(v, torch.Tensor)]
        if len(values) != len(self.outputs):
            raise ModelError(
                f"{self.source}: torch returns {len(values)} tensors, but its graph has "
                f"{len(self.outputs)} outputs; a module that changes its own buffers cannot be kept"
            )
        return dict(zip(self.outputs, values, strict=True))


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
