"""The three routes out of TorchScript, in order of what they keep; child side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from infer_runtime.errors import InferError, ModelError, UsageError
from infer_tool.importers import torch_legacy
from infer_tool.importers.torch_check import same
from infer_tool.importers.torch_inputs import InputSpec, dynamic_shapes, examples, parse_input
from infer_tool.importers.torch_module_child import widen
from infer_tool.importers.torch_program import Opened, convert
from infer_tool.quiet import quiet
from infer_tool.reason import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx_ir as ir


def open_source(source: str, options: Mapping[str, Any], folder: Path) -> Opened:
    """Load, pick the part, convert by the first route of which the result is right."""
    specs = [parse_input(text) for text in options["input"]]
    script = _submodule(read_script(source), options["submodule"], source).eval()
    widened = widen(script, specs)

    def call(tensors: list[Any]) -> Any:
        return script(*tensors)

    given = _try_out(script, specs, source)
    failures = []
    for name, route in ROUTES.items():
        try:
            with quiet():
                model = route(script, specs, given, source, folder)
            return Opened(same(model, call, specs, given, source), call, name + widened)
        except Exception as error:  # noqa: BLE001 - every route fails in its own ways
            text = str(error).removeprefix(f"{source}: ")
            failures.append(f"{name}: {text if isinstance(error, InferError) else reason(error)}")
    raise ModelError(
        f"{source}: no route converts this TorchScript ({'; '.join(failures)}); point to its "
        f"pure part with --submodule: {_parts(script)}"
    )


def read_script(source: str) -> Any:
    """The module; ModelError for whatever torch cannot read."""
    try:
        with quiet():
            return torch.jit.load(source, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        # A damaged archive fails in as many ways as it has parts.
        raise ModelError(f"{source}: torch cannot read it: {reason(error)}") from error


def _submodule(script: Any, path: str, source: str) -> Any:
    for step in path.split(".") if path else ():
        parts = dict(script.named_children())
        if step not in parts:
            raise UsageError(f"--submodule {path}: {source} has {_parts(script)}")
        script = parts[step]
    return script


def _parts(script: Any) -> str:
    return ", ".join(name for name, _ in script.named_children()) or "no parts"


def _try_out(script: Any, specs: list[InputSpec], source: str) -> list[Any]:
    """Examples; what does not run on the stated inputs cannot be converted with them either."""
    try:
        return examples(specs, script)
    except (RuntimeError, ValueError, TypeError, IndexError, torch.jit.Error) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(
            f"{source}: does not run on these --input ({lines[-1][:200]}); its forward takes "
            f"{_signature(script)}; its parts for --submodule are {_parts(script)}"
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
    return _named(program, specs, source)


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
    return _named(program, specs, source)


def _by_legacy_exporter(
    script: Any, specs: list[InputSpec], given: list[Any], _: str, folder: Path
) -> ir.Model:
    return torch_legacy.export(script, specs, given, folder)


# What the converter does not know is found out by the next one.
ROUTES: dict[str, Callable[[Any, list[InputSpec], list[Any], str, Path], ir.Model]] = {
    "TorchScript to ExportedProgram": _by_exported_program,
    "traced operators": _by_tracing,
    torch_legacy.ROUTE: _by_legacy_exporter,
}


def _named(program: Any, specs: list[InputSpec], source: str) -> ir.Model:
    return convert(program, source, [s.name for s in specs], [s.shape for s in specs])
