"""From a configuration dataclass to a command-line function, and from keywords to a checked one."""

from __future__ import annotations

import inspect
import math
import shlex
import typing
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infer_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from infer_tool.config import Talk


def command_function(config: type[Talk], run: Callable[[Talk], None]) -> Callable[..., None]:
    """A function whose parameters are the fields of `config`, for typer to parse."""

    def command(**values: Any) -> None:
        run(_checked(config, values))

    hints = typing.get_type_hints(config, include_extras=True)
    parameters = [_parameter(f, hints[f.name]) for f in fields(config)]
    # Positional arguments keep their order; typer wants those without a default first.
    parameters.sort(key=lambda p: p.default is not inspect.Parameter.empty)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = config.__doc__
    return command


def command_line(command: str, config: Talk) -> str:
    """The shell command that has this configuration."""
    words: list[str] = []
    options: list[str] = []
    for f in fields(config):
        value = getattr(config, f.name)
        if f.metadata.get("positional"):
            words += [str(v) for v in (value if isinstance(value, tuple) else (value,))]
        elif value != f.default:
            options += _as_words(f, value)
    return shlex.join(["infertool", command, *words, *options])


def _as_words(option: Field[Any], value: Any) -> list[str]:
    flags = option.metadata.get("flags") or (f"--{option.name.replace('_', '-')}",)
    if isinstance(value, bool):
        on, _, off = flags[-1].partition("/")
        return [on if value else off or on.replace("--", "--no-", 1)]
    values = value if isinstance(value, tuple) else (value,)
    return [word for v in values for word in (flags[0], str(v))]


def effective_config(command: str, config: Talk) -> str:
    """Every option in effect, one a line; those that are not the default are marked."""
    lines = [f"infertool {command}"]
    for f in fields(config):
        value = getattr(config, f.name)
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        mark = "" if value == f.default else "  (given)"
        lines.append(
            f"  {f.name.replace('_', '-')} = {'-' if shown in (None, '') else shown}{mark}"
        )
    return "\n".join(lines)


def build_config(config: type[Talk], values: Mapping[str, Any]) -> Talk:
    """An instance of `config`; an unknown or a missing key is a UsageError that names it."""
    names = [f.name for f in fields(config)]
    for key in values:
        if key not in names:
            raise UsageError(f"unknown option {key!r}{_hint(key, names)}")
    for f in fields(config):
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise UsageError(f"option {f.name!r} is required")
    return _checked(config, values)


def _checked(config: type[Talk], values: Mapping[str, Any]) -> Talk:
    """The configuration; UsageError for a number outside what its field allows."""
    for f in fields(config):
        least, most = f.metadata.get("min"), f.metadata.get("max")
        value = values.get(f.name, f.default)
        option = f"--{f.name.replace('_', '-')}"
        if isinstance(value, float) and math.isnan(value):
            raise UsageError(f"{option} {value}: expected a number")
        if least is not None and value is not None and value < least:
            raise UsageError(f"{option} {value}: expected at least {least}")
        if most is not None and value is not None and value > most:
            raise UsageError(f"{option} {value}: expected at most {most}")
    return config(**{name: _frozen(value) for name, value in values.items()})


def _hint(key: str, names: list[str]) -> str:
    close = get_close_matches(key, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known options: {', '.join(names)}"


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _parameter(option: Field[Any], hint: Any) -> inspect.Parameter:
    required = option.default is MISSING and option.default_factory is MISSING
    default = inspect.Parameter.empty if required else option.default
    if typing.get_origin(hint) is tuple:
        hint = list[typing.get_args(hint)[0]]  # type: ignore[misc]
        default = default if required else []
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[hint, _typer_info(option)],
    )


def _typer_info(option: Field[Any]) -> Any:
    help_text = option.metadata.get("help")
    metavar = option.metadata.get("metavar")
    if option.metadata.get("positional"):
        return typer.Argument(help=help_text, metavar=metavar, show_default=False)
    flags = option.metadata.get("flags") or (f"--{option.name.replace('_', '-')}",)
    shown = option.default not in (MISSING, None, False, (), "")
    complete = option.metadata.get("complete")
    return typer.Option(
        *flags,
        help=help_text,
        metavar=metavar,
        show_default=shown,
        autocompletion=_completion(complete) if complete else None,
    )


def _completion(where: str) -> Callable[[str], list[str]]:
    """Names of the collection at `module:NAME`, looked up only when the shell asks."""

    def complete(incomplete: str) -> list[str]:
        module, _, name = where.partition(":")
        return [n for n in getattr(import_module(module), name) if n.startswith(incomplete)]

    return complete
