"""The three routes out of TorchScript, in order of what they keep; child side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from infer_runtime.errors import InferError, ModelError, UsageError
from infer_tool.importers.normalise import OPSET
from infer_tool.importers.torch_inputs import InputSpec, dynamic_shapes, examples, parse_input
from infer_tool.importers.torch_program import Opened, convert, name_dimensions
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LEGACY_OPSET = 17  # of the exporter that torch will remove
TOLERANCE = 1e-4  # of the largest value; the gate is stricter, this only chooses the next route


def open_source(source: str, options: Mapping[str, Any], folder: Path) -> Opened:
    """Load, pick the part, convert by the first route of which the result is right."""
    specs = [parse_input(text) for text in options["input"]]
    try:
        with quiet():
            script: Any = torch.jit.load(source, map_location="cpu")
    except Exception as error:
        # A damaged archive fails in as many ways as it has parts.
        raise ModelError(f"{source}: torch cannot read it: {reason(error)}") from error
    script = _submodule(script, options["submodule"], source).eval()
    given = examples(specs)
    _try_out(script, given, source)
    failures = []
    for name, route in ROUTES.items():
        try:
            with quiet():
                model = route(script, specs, given, source, folder)
            return Opened(model, lambda tensors: script(*tensors), name)
        except Exception as error:  # noqa: BLE001 - every route fails in its own ways
            text = str(error).removeprefix(f"{source}: ")
            failures.append(f"{name}: {text if isinstance(error, InferError) else reason(error)}")
    raise ModelError(
        f"{source}: no route converts this TorchScript ({'; '.join(failures)}); point to its "
        f"pure part with --submodule: {_parts(script)}"
    )


def _submodule(script: Any, path: str, source: str) -> Any:
    for step in path.split(".") if path else ():
        parts = dict(script.named_children())
        if step not in parts:
            raise UsageError(f"--submodule {path}: {source} has {_parts(script)}")
        script = parts[step]
    return script


def _parts(script: Any) -> str:
    return ", ".join(name for name, _ in script.named_children()) or "no parts"


def _try_out(script: Any, given: list[Any], source: str) -> None:
    """What does not run on the stated inputs cannot be converted with them either."""
    try:
        with torch.no_grad(), quiet():
            script(*given)
    except (RuntimeError, ValueError, TypeError, IndexError, torch.jit.Error) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(
            f"{source}: does not run on these --input ({lines[-1][:200]}); its forward takes "
            f"{_signature(script)}"
        ) from error


def _signature(script: Any) -> str:
    schema = script.forward.schema
    return ", ".join(f"{a.name}: {a.type}" for a in schema.arguments[1:]) or "nothing"


def _by_exported_program(
    script: Any, specs: list[InputSpec], given: list[Any], source: str, _: Path
) -> ir.Model:
    """torch's converter of TorchScript graphs: keeps dynamic dimensions, knows no prim::If."""
    from torch._export.converter import TS2EPConverter

    program = TS2EPConverter(script, tuple(given), {}).convert()
    dynamic = dynamic_shapes(specs)
    if dynamic is not None:  # the converter has fixed what the example had
        program = torch.export.export(
            program.module(check_guards=False), tuple(given), dynamic_shapes=tuple(dynamic.values())
        )
    model = _named(program, specs, source)
    return _same(model, script, specs, source)


def _by_tracing(
    script: Any, specs: list[InputSpec], given: list[Any], source: str, _: Path
) -> ir.Model:
    """Record the operators of one run: control flow follows the example, sizes are fixed."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with torch.no_grad():
        traced = make_fx(lambda *values: script(*values))(*given)
    dynamic = dynamic_shapes(specs)
    program = torch.export.export(
        traced, tuple(given), dynamic_shapes=None if dynamic is None else (tuple(dynamic.values()),)
    )
    model = _named(program, specs, source)
    return _same(model, script, specs, source)


def _by_legacy_exporter(
    script: Any, specs: list[InputSpec], given: list[Any], source: str, folder: Path
) -> ir.Model:
    """The exporter of TorchScript itself, which torch has announced to remove."""
    path = folder / "legacy.onnx"
    axes = {s.name: {i: d for i, d in enumerate(s.shape) if isinstance(d, str)} for s in specs}
    torch.onnx.export(
        script, tuple(given), str(path), dynamo=False, opset_version=LEGACY_OPSET,
        input_names=[s.name for s in specs], dynamic_axes=axes,
    )  # fmt: skip
    from infer_tool.importers.normalise import normalise

    model = normalise(ir.load(path), source)
    assert model.opset_imports[""] == OPSET
    return _same(model, script, specs, source)


# What the converter does not know is found out by the next one.
ROUTES: dict[str, Callable[[Any, list[InputSpec], list[Any], str, Path], ir.Model]] = {
    "TorchScript to ExportedProgram": _by_exported_program,
    "traced operators": _by_tracing,
    "legacy exporter": _by_legacy_exporter,
}


def _named(program: Any, specs: list[InputSpec], source: str) -> ir.Model:
    return convert(program, source, [s.name for s in specs], [s.shape for s in specs])


def _same(model: ir.Model, script: Any, specs: list[InputSpec], source: str) -> ir.Model:
    """The model, if it computes what the script does on inputs of two sizes that it never saw.

    A route that has frozen a branch or a size shows it here, and the next one gets its chance.
    """
    from infer_runtime import Session
    from infer_tool.importers.normalise import normalise

    normalise(model, source)
    names = [str(v.name) for v in model.graph.inputs]
    if len(names) != len(specs):
        raise ModelError(f"keeps {len(names)} of {len(specs)} inputs")
    if any(isinstance(d, str) for s in specs for d in s.shape):
        _check_dynamic(model, specs)
    session = Session(model)
    from passes.compare import compare_outputs

    for size in (2, 3):
        tensors = [_resized(t, s, size) for t, s in zip(examples(specs), specs, strict=True)]
        with torch.no_grad():
            wanted = Opened(model, lambda given: script(*given)).reference(source)(
                {n: t.numpy() for n, t in zip(names, tensors, strict=True)}
            )
        got = session.run({n: t.numpy() for n, t in zip(names, tensors, strict=True)})
        worst = max(d.max_rel for d in compare_outputs(wanted, got).values())
        if not worst <= TOLERANCE:
            raise ModelError(f"computes something else (relative error {worst:.2g})")
    return model


def _check_dynamic(model: ir.Model, specs: list[InputSpec]) -> None:
    for value, spec in zip(model.graph.inputs, specs, strict=True):
        for size, wanted in zip(value.shape or (), spec.shape, strict=True):
            if isinstance(wanted, str) and isinstance(size, int):
                raise ModelError(f"fixes dimension {wanted!r} to {size}")


def _resized(tensor: Any, spec: InputSpec, size: int) -> Any:
    shape = [d if isinstance(d, int) else size for d in spec.shape]
    if not tensor.is_floating_point():
        return torch.zeros(shape, dtype=tensor.dtype)
    return torch.randn(shape, generator=torch.Generator().manual_seed(size)).to(tensor.dtype)
