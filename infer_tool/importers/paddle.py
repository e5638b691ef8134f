"""Paddle: saved inference models, and layers that a factory returns, through paddle2onnx.

`load` is this side, `open_source` the child's.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import ModelError, UnsupportedOpError, UsageError
from infer_tool.extras import require
from infer_tool.importers.factory import are_parameters, call_factory
from infer_tool.importers.wire import WireError, messages, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from infer_tool.importers import Imported, ImportOptions

    Run = Callable[[Mapping[str, Any]], dict[str, Any]]

OPSET = 17  # of what it writes, most is converted at this version
PARAMETERS = ".pdiparams"
MODELS = (".json", ".pdmodel")
BLOCKS, OPS, TYPE = 1, 4, 3  # of framework.proto
ACTING = re.compile(r"(?:.*\.)?(save|save_combine|load|load_combine|py_func|py_layer|read_file)_?")


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
    _screen(source, model_file(source))
    return load_framework(source, options, "paddle", path)


def model_file(source: str) -> Path:
    """The program of a model, whose parameters must lie beside it.

    Raises:
        ModelError: there is not exactly one, or its parameters are missing.

    """
    path = Path(source)
    if path.is_dir():
        found = [p.with_suffix(s) for p in sorted(path.glob(f"*{PARAMETERS}")) for s in MODELS]
        found = [p for p in found if p.is_file()]
        if len(found) != 1:
            names = ", ".join(p.name for p in found) or "none"
            raise ModelError(f"{source}: holds several models or none ({names}); name its file")
        path = found[0]
    if not path.with_suffix(PARAMETERS).is_file():
        raise ModelError(f"{source}: {path.stem}{PARAMETERS} is missing; put it beside the model")
    return path


def _screen(source: str, path: Path) -> None:
    """Programs can hold operators that read and write files."""
    content = path.read_bytes()
    try:
        names = list(_json_ops(content) if content[:1] == b"{" else _proto_ops(content))
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, WireError) else "no JSON"
        raise ModelError(f"{source}: is damaged: {why}; copy it again") from error
    for name in names:
        if ACTING.fullmatch(name):
            raise UnsupportedOpError(f"{source}: acts on files or calls code: {name}")


def _proto_ops(content: bytes) -> Iterator[str]:
    return (text(op, TYPE) for op in messages(memoryview(content), BLOCKS, OPS))


def _json_ops(content: bytes) -> Iterator[str]:
    rest = [json.loads(content)]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            name = value.get("#")
            if isinstance(name, str):
                yield name
            rest.extend(value.values())
        elif isinstance(value, list):
            rest.extend(value)


def open_source(
    source: str, folder: Path, options: Mapping[str, Any]
) -> tuple[Run, dict[str, Any]]:
    """In the child: save a layer as a model, convert the model."""
    paddle, paddle2onnx = require("paddle", "paddle"), require("paddle2onnx", "paddle")
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
