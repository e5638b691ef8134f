"""Engines: anything that runs a model file. One interface, one small file each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

    from infer_runtime import TensorInfo

    Shapes = Mapping[str, Sequence[int]]

ENGINES = ("onnxruntime", "reference", "native")


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
    if name not in ENGINES:
        raise UsageError(f"--engine {name!r}: expected one of auto, {', '.join(ENGINES)}")
    module = import_module(f"infer_tool.engines.{name}")
    engine: Engine = module.open_model(model, threads, optimize, shapes or {}, lean)
    _check_shapes(engine, shapes or {})
    return engine


def available_engines() -> dict[str, str | None]:
    """Version of each engine, None where it is not installed; imports none of them."""
    return {name: import_module(f"infer_tool.engines.{name}").version() for name in ENGINES}


def _check_shapes(engine: Engine, shapes: Shapes) -> None:
    infos = {info.name: info for info in engine.inputs}
    for name, shape in shapes.items():
        if name not in infos:
            raise UsageError(f"shape of {name!r}: the model's inputs are {', '.join(infos)}")
        wanted = infos[name].shape
        fits = wanted is None or (
            len(wanted) == len(shape)
            and all(not isinstance(w, int) or w == s for w, s in zip(wanted, shape, strict=True))
        )
        if not fits:
            raise UsageError(f"shape {list(shape)} of {name!r}: the model has {list(wanted or ())}")
