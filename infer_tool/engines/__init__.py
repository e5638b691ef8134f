"""Engines: anything that runs a model file. One interface, one small file each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infer_runtime.errors import UsageError
from infer_tool.plugins import load_plugin, plugins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

    from infer_runtime import TensorInfo

    Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Kind:
    """What an engine reads (a key of `importers.formats`), and the extra that installs it."""

    reads: str
    extra: str = ""


ENGINES = {
    "onnxruntime": Kind("onnx", "engines"),
    "reference": Kind("onnx"),
    "openvino": Kind("onnx", "openvino"),
    "native": Kind("onnx", "native"),
    "litert": Kind("tflite", "litert"),
    "torch": Kind("pt2", "torch"),
}
# Those that check what is written; the others run where they are named.
JUDGES = ("onnxruntime", "reference")
TFLITE_IDENTIFIER = slice(4, 8), b"TFL3"


class Engine(Protocol):
    """A loaded model on one engine."""

    name: str
    version: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            FeedError: a feed does not fit the model.
            ModelError: the engine fails.

        """
        ...


def open_engine(
    name: str,
    model: str | Path | ir.Model,
    *,
    threads: int = 0,
    shapes: Shapes | None = None,
    optimize: bool = True,
    lean: bool = False,
) -> Engine:
    """Load a model on an engine.

    Args:
        name: one of `ENGINES`.
        model: a file or a model in memory.
        threads: 0 leaves the engine's default.
        shapes: sizes that inputs with dynamic dimensions will have; an engine may use them.
        optimize: False runs the graph node by node, as it is written, where the engine can.
        lean: use weights where they lie, without faster copies of them, where the engine can.

    Raises:
        UsageError: no such engine, or `shapes` do not fit the model.
        MissingExtraError: the engine is not installed.
        ModelError: the engine refuses the model.

    """
    if name not in engine_kinds():
        raise UsageError(f"--engine {name!r}: expected one of auto, {', '.join(engine_kinds())}")
    from infer_tool.engines.common import check_shapes

    module = engine_module(name)
    _check_kind(name, model)
    engine: Engine = module.open_model(model, threads, optimize, shapes or {}, lean)
    check_shapes(engine.inputs, shapes or {})
    return engine


def engine_kinds() -> dict[str, Kind]:
    """What is built in, and the engines of plugins: modules that say what they read in `READS`."""
    found = {name: Kind(module.READS) for name, module in plugins("engines").items()}
    return found | ENGINES


def engine_module(name: str) -> Any:
    """The module with `open_model` and `version`."""
    if name in ENGINES:
        return import_module(f"infer_tool.engines.{name}")
    return load_plugin("engines", name)


def available_engines() -> dict[str, str | None]:
    """Version of each engine, None where it is not installed; imports none of them."""
    return {name: engine_module(name).version() for name in engine_kinds()}


def warm_up(name: str) -> None:
    """Import what an engine imports, so that no measurement of a model holds it."""
    packages = {"litert": ("ai_edge_litert.interpreter",), "reference": ()}.get(name, (name,))
    for package in packages:
        if find_spec(package.partition(".")[0]) is not None:
            import_module(package)


def file_kind(model: str | Path | ir.Model) -> str:
    """What a model is, as `Kind.reads` names it; a model in memory is 'onnx'.

    Raises:
        UsageError: no such file.
        ModelError: it is no model.

    """
    from infer_tool.importers.detect import detect

    if not isinstance(model, (str, Path)):
        return "onnx"
    path, (place, identifier) = Path(model), TFLITE_IDENTIFIER
    if path.is_file():
        with path.open("rb") as handle:
            if handle.read(place.stop)[place] == identifier:
                return "tflite"
    return detect(str(model))


def engines_for(kind: str) -> tuple[str, ...]:
    """Engines that run such a file here without being named, the fastest first."""
    found = available_engines()
    names = (
        JUDGES if kind == "onnx" else tuple(n for n, k in engine_kinds().items() if k.reads == kind)
    )
    return tuple(name for name in names if found.get(name))


def _check_kind(name: str, model: str | Path | ir.Model) -> None:
    kind, reads = file_kind(model), engine_kinds()[name].reads
    if kind != reads:
        fitting = ", ".join(n for n, k in engine_kinds().items() if k.reads == kind)
        hint = f"use --engine {fitting}" if fitting else "convert it first: infertool convert"
        raise UsageError(f"{model}: is {kind}, {name} runs {reads} files only; {hint}")
