"""Paddle: saved inference models, and layers that a factory returns, through paddle2onnx.

`load` is this side, `open_source` the child's.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.extras import require_in_child
from infer_tool.importers.factory import are_parameters, call_factory
from infer_tool.importers.paddle_screen import PARAMETERS, model_file, screen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infer_tool.importers import Imported, ImportOptions

    Run = Callable[[Mapping[str, Any]], dict[str, Any]]

OPSET = 17  # of what it writes, most is converted at this version


def load(source: str, options: ImportOptions) -> Imported:
    """Convert in a child process; a folder holds one model, its parameters lie beside it.

    Raises:
        UsageError: the code fails or returns no layer, or --input is missing for it.
        ModelError: damaged, or Paddle or paddle2onnx cannot open or convert it.
        UnsupportedOpError: it would act on files.
        MissingExtraError: Paddle or paddle2onnx is not installed.

    """
    from infer_tool.importers.foreign import load_framework

    path = Path(source)
    if not path.exists():
        return load_framework(source, options, "paddle")
    if options.input:
        raise UsageError(f"--input: {source} states its own inputs")
    screen(source)
    return load_framework(source, options, "paddle", path)


def open_source(
    source: str, folder: Path, options: Mapping[str, Any]
) -> tuple[Run, dict[str, Any]]:
    """In the child: save a layer as a model, convert the model."""
    paddle = require_in_child("paddle", "paddlepaddle")
    paddle2onnx = require_in_child("paddle2onnx", "paddle2onnx")
    if Path(source).exists():
        path = model_file(source)
        run, inputs, outputs = _saved(paddle, path)
    else:
        path = folder / "layer.json"
        run, inputs, outputs = _layer(paddle, source, options["input"], path.with_suffix(""))
    paddle2onnx.export(
        str(path),
        str(path.with_suffix(PARAMETERS)),
        str(folder / "model.onnx"),
        opset_version=OPSET,
        optimize_tool="None",  # one of its tools installs packages while it runs
    )
    return run, {"route": "paddle2onnx", "inputs": inputs, "outputs": outputs}


def _saved(paddle: Any, path: Path) -> tuple[Run, list[str], list[str]]:
    config = paddle.inference.Config(str(path), str(path.with_suffix(PARAMETERS)))
    config.switch_ir_optim(False)
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)
    inputs, outputs = predictor.get_input_names(), predictor.get_output_names()

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        for name in inputs:
            handle = predictor.get_input_handle(name)
            handle.reshape(feeds[name].shape)
            handle.copy_from_cpu(feeds[name])
        predictor.run()
        return {name: predictor.get_output_handle(name).copy_to_cpu() for name in outputs}

    return run, inputs, outputs


def _layer(
    paddle: Any, source: str, items: list[Mapping[str, Any]], target: Path
) -> tuple[Run, list[str], list[str]]:
    layer = call_factory(source)
    if not isinstance(layer, paddle.nn.Layer):
        raise UsageError(f"{source}: returned {type(layer).__name__}, expected a paddle.nn.Layer")
    layer.eval()
    names = [item["name"] for item in items]
    parameters = list(inspect.signature(layer.forward).parameters)
    if are_parameters(parameters, names, source):
        items = sorted(items, key=lambda item: parameters.index(item["name"]))
        names = [item["name"] for item in items]
    specs = [
        paddle.static.InputSpec(
            [d if isinstance(d, int) else None for d in item["shape"]], item["dtype"], item["name"]
        )
        for item in items
    ]

    def run(feeds: Mapping[str, Any]) -> dict[str, Any]:
        with paddle.no_grad():
            results = layer(*(paddle.to_tensor(feeds[name]) for name in names))
        return {name: value.numpy() for name, value in _outputs(paddle, results).items()}

    with paddle.no_grad():
        results = layer(*(_example(paddle, item) for item in items))
    paddle.jit.save(layer, str(target), input_spec=specs)
    return run, names, list(_outputs(paddle, results))


def _example(paddle: Any, item: Mapping[str, Any]) -> Any:
    return paddle.zeros([d if isinstance(d, int) else 2 for d in item["shape"]], item["dtype"])


def _outputs(paddle: Any, results: Any) -> dict[str, Any]:
    """Outputs in a dict keep its keys, others are counted."""
    leaves = paddle.utils.flatten(results)
    if isinstance(results, dict) and len(leaves) == len(results):
        return {key: results[key] for key in sorted(results)}  # the order of what is saved
    if len(leaves) == 1:
        return {"output": leaves[0]}
    return {f"output_{i}": leaf for i, leaf in enumerate(leaves)}
