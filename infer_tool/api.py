"""The commands as Python functions: the same configuration, the same checks, the same report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from infer_tool.config import COMMANDS

if TYPE_CHECKING:
    from os import PathLike

    from infer_tool.config import Talk
    from infer_tool.report.model import Report


def convert(source: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Convert any source to optimised, verified ONNX; options as in `infer_tool.config.Convert`."""
    return _call("convert", source=str(source), output=output, **options)


def optimize(model: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Run the exact passes; options as in `infer_tool.config.Optimize`."""
    return _call("optimize", model=str(model), output=output, **options)


def quantize(model: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Quantise and measure; options as in `infer_tool.config.Quantize`.

    Raises GateError when a limit is missed; its `evidence` is the report.
    """
    return _call("quantize", model=str(model), output=output, **options)


def prune(model: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Remove channels and train the rest; options as in `infer_tool.config.Prune`.

    Raises GateError when a limit is missed; its `evidence` is the report.
    """
    return _call("prune", model=str(model), output=output, **options)


def distill(teacher: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Train a student to imitate its teacher; options as in `infer_tool.config.Distill`.

    Raises GateError when a limit is missed; its `evidence` is the report.
    """
    return _call("distill", model=str(teacher), output=output, **options)


def binarize(model: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Make layers binary and train them; options as in `infer_tool.config.Binarize`.

    Raises GateError when a limit is missed; its `evidence` is the report.
    """
    return _call("binarize", model=str(model), output=output, **options)


def cluster(model: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Give weights few values and train them; options as in `infer_tool.config.Cluster`.

    Raises GateError when a limit is missed; its `evidence` is the report.
    """
    return _call("cluster", model=str(model), output=output, **options)


def factorize(model: str | PathLike[str], output: str | PathLike[str], **options: Any) -> Report:
    """Cut layers into two of low rank; options as in `infer_tool.config.Factorize`.

    Raises GateError when a limit is missed; its `evidence` is the report.
    """
    return _call("factorize", model=str(model), output=output, **options)


def run(recipe: str | PathLike[str] | None = None, **options: Any) -> Report:
    """Run a recipe, or repeat the command of a manifest (`locked`); `infer_tool.config.Run`.

    Raises GateError when a limit is missed, MismatchError when the bytes are others than those of
    the manifest; its `evidence` is the report.
    """
    return _call("run", recipe=recipe, **options)


def verify(
    reference: str | PathLike[str], candidate: str | PathLike[str], **options: Any
) -> Report:
    """Compare the outputs of two models; options as in `infer_tool.config.Verify`.

    Raises MismatchError when they differ; its `evidence` is the report.
    """
    return _call("verify", reference=str(reference), candidate=str(candidate), **options)


def bench(*models: str | PathLike[str], **options: Any) -> Report:
    """Measure latency side by side; options as in `infer_tool.config.Bench`."""
    return _call("bench", models=tuple(str(m) for m in models), **options)


def inspect(model: str | PathLike[str], **options: Any) -> Report:
    """Describe a model; options as in `infer_tool.config.Inspect`."""
    return _call("inspect", model=str(model), **options)


def doctor(**options: Any) -> Report:
    """What works in this environment."""
    return _call("doctor", **options)


def run_command(name: str, config: Talk) -> Report:
    """Run the command `name`; progress and log go to stderr unless `config.quiet`."""
    from infer_tool.limits import memory_limit, time_limit
    from infer_tool.ui import Terminal

    module = import_module(f"infer_tool.commands.{name}")
    with (
        Terminal(quiet=config.quiet) as ui,
        time_limit(config.time_budget),
        memory_limit(config.max_memory),
    ):
        if config.show_config:
            from infer_tool.options import effective_config

            ui.log(effective_config(name, config))
        report: Report = module.run(config, ui)
    return report


def _call(name: str, **values: Any) -> Report:
    from pathlib import Path

    from infer_tool.options import build_config  # needs typer, which a worker's Python may not have

    for key in ("output", "report", "baseline", "locked", "recipe", "state_dict", "checkpoint"):
        if values.get(key) is not None:
            values[key] = Path(values[key])
    values.setdefault("quiet", True)
    return run_command(name, build_config(COMMANDS[name], values))
