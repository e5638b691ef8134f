"""LiteRT: TFLite files, with its own defaults (XNNPACK kernels where they fit)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime import TensorInfo
from infer_runtime.errors import ModelError, UsageError
from infer_tool.engines.common import check_feeds, first_line, installed_version
from infer_tool.extras import require
from infer_tool.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import onnx_ir as ir

DEFAULT_SIGNATURE = "serving_default"


class LiteRtEngine:
    """An interpreter of the file's default signature, or of its first subgraph."""

    name = "litert"

    def __init__(self, model: str | Path, threads: int) -> None:
        self.version = str(version())
        self._model = model
        try:
            with quiet():
                self._interpreter = _interpreter_class()(
                    model_path=str(model), num_threads=threads or None
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{model}: LiteRT refuses it: {first_line(error)}") from error
        self._places = _named(self._interpreter, "inputs")
        self._results = _named(self._interpreter, "outputs")
        self.inputs = tuple(_info(n, d) for n, d in self._places.items())
        self.outputs = tuple(_info(n, d) for n, d in self._results.items())

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Outputs by name.

        Raises:
            FeedError: a feed does not fit the model.
            ModelError: the engine fails.

        """
        check_feeds(self.inputs, feeds)
        run = self._interpreter
        try:
            if any(
                tuple(run.get_input_details()[i]["shape"]) != feeds[name].shape
                for i, name in self._order()
            ):
                for name, detail in self._places.items():
                    run.resize_tensor_input(detail["index"], feeds[name].shape)
                run.allocate_tensors()
            for name, detail in self._places.items():
                run.set_tensor(detail["index"], feeds[name])
            run.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self._model}: LiteRT cannot run it: {first_line(error)}") from error
        return {n: run.get_tensor(d["index"]) for n, d in self._results.items()}

    def _order(self) -> list[tuple[int, str]]:
        names = {detail["index"]: name for name, detail in self._places.items()}
        return [(i, names[d["index"]]) for i, d in enumerate(self._interpreter.get_input_details())]


def open_model(
    model: str | Path | ir.Model,
    threads: int,
    optimize: bool,  # noqa: ARG001 - delegates are LiteRT's own choice
    shapes: Mapping[str, Sequence[int]],  # noqa: ARG001 - inputs are resized when they come
    lean: bool = False,  # noqa: ARG001 - files are mapped
) -> LiteRtEngine:
    """Load a file."""
    assert isinstance(model, (str, Path))
    return LiteRtEngine(model, threads)


def version() -> str | None:
    """The installed version of LiteRT, else of the TensorFlow that carries a copy, or None."""
    return installed_version("ai-edge-litert") or installed_version("tensorflow")


def _interpreter_class() -> Any:
    if find_spec("ai_edge_litert") is None and find_spec("tensorflow") is not None:
        return require("tensorflow", "tensorflow").lite.Interpreter
    return require("ai_edge_litert.interpreter", "litert").Interpreter


def _named(interpreter: Any, side: str) -> dict[str, Any]:
    """Details of the inputs or outputs under the names of the signature, in the file's order."""
    details = interpreter.get_input_details() if side == "inputs" else (
        interpreter.get_output_details()
    )  # fmt: skip
    signatures = interpreter.get_signature_list()
    if not signatures:
        return _unique([(str(d["name"]), d) for d in details])
    key = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures))
    if len(signatures) > 1 and key != DEFAULT_SIGNATURE:
        raise UsageError(f"the file has several signatures ({', '.join(signatures)}), none default")
    runner = interpreter.get_signature_runner(key)
    found = runner.get_input_details() if side == "inputs" else runner.get_output_details()
    names = {detail["index"]: name for name, detail in found.items()}
    if not all(d["index"] in names for d in details):
        raise ModelError(f"signature {key!r} does not name all {side} of the first subgraph")
    return {names[d["index"]]: d for d in details}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, detail in pairs:
        while name in found:
            name += "_output"
        found[name] = detail
    return found


def _info(name: str, detail: Mapping[str, Any]) -> TensorInfo:
    import numpy as np

    signature = detail["shape_signature"]
    shape = signature if len(signature) else detail["shape"]
    return TensorInfo(name, tuple(None if d < 0 else int(d) for d in shape), _dtype(np, detail))


def _dtype(np: Any, detail: Mapping[str, Any]) -> Any:
    kind = np.dtype(detail["dtype"])
    return np.dtype(object) if kind.kind in "SU" else kind
