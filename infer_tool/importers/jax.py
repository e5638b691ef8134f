"""JAX functions and Flax or Equinox modules that a factory returns, through jax2onnx.

`load` is this side, `open_source` the child's.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import UsageError
from infer_tool.extras import require_in_child
from infer_tool.importers.factory import are_parameters, call_factory, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from infer_tool.importers import Imported, ImportOptions

OPSET = 20


def load(source: str, options: ImportOptions) -> Imported:
    """Call the factory in a child process, trace what it returns on --input, convert.

    Raises:
        UsageError: the code fails, returns nothing of JAX, or --input is missing.
        ModelError: JAX cannot trace it, or jax2onnx cannot convert it.
        MissingExtraError: JAX or jax2onnx is not installed.

    """
    from infer_tool.importers.foreign import load_framework

    return load_framework(source, options, "jax")


def open_source(
    source: str, folder: Path, options: Mapping[str, Any]
) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]], dict[str, Any]]:
    """In the child: trace and convert."""
    jax, jax2onnx = require_in_child("jax", "jax"), require_in_child("jax2onnx", "jax2onnx")
    function = _function(source, [item["name"] for item in options["input"]])
    specs = _specs(jax, options["input"], source)
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.eval_shape(function, *specs))
    names = _names([path for path, _ in leaves])

    def flat(*feeds: Any) -> list[Any]:
        found: list[Any] = jax.tree_util.tree_leaves(function(*feeds))
        return found

    _take_positional_arguments()
    jax2onnx.to_onnx(
        flat,
        specs,
        opset=OPSET,
        return_mode="file",
        output_path=str(folder / "model.onnx"),
        enable_double_precision=any(item["dtype"] == "float64" for item in options["input"]),
    )
    run = jax.jit(function)
    inputs = [item["name"] for item in options["input"]]

    def outputs(feeds: Mapping[str, Any]) -> dict[str, Any]:
        values = jax.tree_util.tree_leaves(run(*(feeds[name] for name in inputs)))
        return dict(zip(names, values, strict=True))

    shapes = [[d if isinstance(d, int) else str(d) for d in leaf.shape] for _, leaf in leaves]
    return outputs, {"route": "jax2onnx", "inputs": inputs, "outputs": names, "shapes": shapes}


def _function(source: str, names: list[str]) -> Callable[..., Any]:
    """Takes its arrays in the order of --input, whatever the order of its parameters."""
    made = call_factory(source)
    if not callable(made) or kind_of(made) != "jax":
        shown = type(made).__name__
        raise UsageError(f"{source}: returned {shown}, expected a JAX function or module")
    if hasattr(made, "eval"):
        made.eval()
    found: Callable[..., Any] = made
    if not are_parameters(inspect.signature(made).parameters, names, source):
        return found
    return lambda *feeds: found(**dict(zip(names, feeds, strict=True)))


def _specs(jax: Any, items: list[Mapping[str, Any]], source: str) -> list[Any]:
    """Shapes with symbols where a dimension has a name."""
    scope = jax.export.SymbolicScope()
    specs = []
    for item in items:
        wide = item["dtype"] in ("int64", "uint64", "float64")
        if wide and not jax.config.jax_enable_x64:
            raise UsageError(
                f"--input {item['name']}: {source} computes in 32 bits; state "
                f"{item['dtype'].replace('64', '32')}, or set jax_enable_x64 in the code"
            )
        shape = jax.export.symbolic_shape(", ".join(map(str, item["shape"])), scope=scope)
        specs.append(jax.ShapeDtypeStruct(shape, item["dtype"]))
    return specs


def _take_positional_arguments() -> None:
    """jax2onnx puts functions that take keywords only in the place of Flax's, which take both."""
    patch = import_module("jax2onnx.plugins._patching").MonkeyPatchSpec
    original = patch.__init__

    def init(self: Any, target: Any, attr: str, make_value: Any, *rest: Any, **more: Any) -> None:
        original(self, target, attr, lambda old: _named(make_value(old), old), *rest, **more)

    patch.__init__ = init


def _named(new: Any, old: Any) -> Any:
    """`new`, called with keywords of `old` for what it does not take by position."""
    try:
        names = list(inspect.signature(old).parameters)
        kinds = [p.kind for p in inspect.signature(new).parameters.values()]
    except (TypeError, ValueError):  # no function of Python
        return new
    count = sum(k in (k.POSITIONAL_ONLY, k.POSITIONAL_OR_KEYWORD) for k in kinds)
    if any(k == k.VAR_POSITIONAL for k in kinds) or not any(k == k.KEYWORD_ONLY for k in kinds):
        return new

    def call(*args: Any, **keywords: Any) -> Any:
        extra = dict(zip(names[count:], args[count:], strict=False))
        return new(*args[:count], **extra, **keywords)

    return call


def _names(paths: list[Any]) -> list[str]:
    """Outputs in a dict keep its keys, others are counted."""
    keys = [".".join(str(getattr(k, "key", getattr(k, "name", ""))) for k in p) for p in paths]
    if keys == [""]:
        return ["output"]
    named = all(keys) and len(set(keys)) == len(keys)
    return keys if named else [f"output_{i}" for i in range(len(keys))]
