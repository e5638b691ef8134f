"""TensorFlow and Keras sources, converted and run in a process of their own.

tf2onnx converts first; where it cannot, or what it writes does not compute what TensorFlow does,
TensorFlow's own converter to TFLite and our importer of that do.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import MismatchError, ModelError
from infer_tool.extras import check_installed
from infer_tool.importers import Imported, ImportOptions
from infer_tool.importers.detect import detect
from infer_tool.importers.foreign import MODEL, name_dimensions, prove, read_converted
from infer_tool.importers.gate import keep_outputs
from infer_tool.importers.keras_screen import screen_archive, screen_hdf5
from infer_tool.importers.tensorflow_screen import screen_graph, screen_saved_model
from infer_tool.importers.torch_inputs import parse_input
from infer_tool.worker import Worker

if TYPE_CHECKING:
    import onnx_ir as ir

    from infer_runtime.errors import InferError

CHILD = "infer_tool.importers.tensorflow_child"
ROUTES = ("tf2onnx", "tflite")
Refused = dict[str, ModelError | MismatchError]  # route -> why


def load(source: str, options: ImportOptions) -> Imported:
    """Convert; the names of the signature stay, and TensorFlow itself is the reference.

    Raises:
        UsageError: an option names what the source has not.
        ModelError: damaged, refused, or no route converts it; each says why.
        MissingExtraError: TensorFlow or tf2onnx is not installed.
        LimitError: the conversion takes too long.

    """
    kind = detect(source)
    _screen(source, kind, options)
    for package in ("tensorflow", "tf2onnx"):
        check_installed(package, "tensorflow")
    refused: Refused = {}
    routes = list(ROUTES)
    while routes:
        worker = Worker(CHILD, source, _asked(kind, options, routes))
        refused |= {route: ModelError(why) for route, why in worker.facts["refused"].items()}
        route = worker.facts["route"]
        if not route:
            break
        try:
            model = _model(worker, source, kind, options)
        except (ModelError, MismatchError) as error:
            refused[route] = error
            routes = [r for r in routes if r not in refused]
        else:
            said = "; ".join([route, *_reasons(refused, source)])
            return Imported(model, kind, Path(source), worker, route=said)
    raise _failure(source, refused)


def _screen(source: str, kind: str, options: ImportOptions) -> None:
    if kind == "saved_model":
        screen_saved_model(source, follow_links=options.follow_links)
    else:
        {"keras": screen_archive, "keras_h5": screen_hdf5, "graph_def": screen_graph}[kind](source)


def _asked(kind: str, options: ImportOptions, routes: list[str]) -> dict[str, Any]:
    specs = [parse_input(text) for text in options.input]
    return {
        "kind": kind,
        "routes": routes,
        "signature": options.signature,
        "output_name": list(options.output_name),
        "input": [{"name": s.name, "shape": s.shape, "dtype": s.dtype.name} for s in specs],
    }


def _model(worker: Worker, source: str, kind: str, options: ImportOptions) -> ir.Model:
    """What the child converted, checked against the child."""
    stated = {s.name: s.shape for s in map(parse_input, options.input)}
    is_keras = kind.startswith("keras")
    if worker.facts["route"] == "tflite":
        model = _from_tflite(worker, source)
    else:
        model = read_converted(
            worker.folder / MODEL, source, lambda m: name_dimensions(m, stated, batch=is_keras)
        )
    prove(model, worker, source)
    return model


def _from_tflite(worker: Worker, source: str) -> ir.Model:
    """Names come from the signature, which our importer reads."""
    path = str(worker.folder / "model.tflite")
    load_tflite = import_module("infer_tool.importers.tflite").load
    try:
        model: ir.Model = load_tflite(path, ImportOptions()).model
    except ModelError as error:
        raise type(error)(str(error).replace(path, source)) from error
    keep_outputs(model, worker.facts["outputs"], source)
    return model


def _failure(source: str, refused: Refused) -> InferError:
    """All reasons in one line; the first one's class."""
    listed = "; ".join(_reasons(refused, source))
    return type(next(iter(refused.values())))(f"{source}: cannot be converted: {listed}")


def _reasons(refused: Refused, source: str) -> list[str]:
    return [f"{name}: {str(e).removeprefix(f'{source}: ')}" for name, e in refused.items()]
