"""The command line: parses, calls the function of the same name, answers with an exit status.

Nothing heavy is imported here or in what this module imports; a command's own module is loaded
when the command runs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infer_runtime.errors import InferError, LimitError, UsageError
from infer_tool.config import COMMANDS
from infer_tool.guard import (
    INTERRUPTED,
    STOPS,
    crash,
    fork,
    interrupt_once,
    open_standard_streams,
)
from infer_tool.options import command_function

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from infer_tool.config import Talk
    from infer_tool.report.model import Report

# typer carries its own copy of click since 0.25 and depends on click before; this finds either.
_PARSE_ERROR = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_NO_LOG = logging.NullHandler()
_START = (
    ("convert", "model.pt2 -o model.onnx", "any source to optimised, verified ONNX"),
    (
        "quantize",
        "model.onnx --data samples.npz -o int8.onnx --max-drop 0.5%",
        "smaller and faster, measured, within a limit",
    ),
    ("verify", "model.onnx int8.onnx --data samples.npz", "do two models give the same outputs?"),
    ("bench", "model.onnx int8.onnx", "latency side by side, with an interval"),
    ("inspect", "model.onnx --layers", "operators, shapes, parameters, memory"),
)


def _start_screen() -> str:
    """What a person needs first, who typed the name alone."""
    lines = ["infertool: from a trained model to a small, fast, proven deployable file.", ""]
    for name, arguments, what in _START:
        lines += [f"  {name}: {what}", f"      infertool {name} {arguments}", ""]
    lines += ["infertool --help lists all commands, infertool COMMAND --help their options;"]
    return "\n".join([*lines, "infertool doctor says what works here."])


def _app() -> typer.Typer:
    epilog = "Examples:\n\n" + "\n\n".join(f"infertool {n} {a}" for n, a, _ in _START)
    app = typer.Typer(
        name="infertool",
        help="From a trained model to a small, fast, proven deployable file.",
        epilog=epilog,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name, config in COMMANDS.items():
        app.command(name)(command_function(config, _runner(name)))
    return app


def _print_version(asked: bool) -> None:
    if asked:
        from infer_tool.version import version as current

        typer.echo(f"infertool {current()}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Options before the command."""


def _runner(name: str) -> Callable[[Talk], None]:
    def run(config: Talk) -> None:
        from infer_tool.api import run_command
        from infer_tool.report.write import write_report

        try:
            report = run_command(name, config)
        except InferError as error:
            if error.evidence is not None:
                write_report(error.evidence, config.report)
                _show(error.evidence, as_json=config.json)
            raise
        write_report(report, config.report)
        _show(report, as_json=config.json)

    return run


def _show(report: Report, *, as_json: bool) -> None:
    from infer_tool.report.terminal import show

    try:
        show(report, as_json=as_json)
        sys.stdout.flush()
    except OSError as error:  # full, or closed by who reads
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the end
        raise UsageError(f"stdout cannot be written: {error.strerror}") from error


def _fail(message: str) -> None:
    line = " ".join(str(message).split())
    typer.echo(f"error: {line}", err=True)


def _completing() -> bool:
    """The shell asks what could come next; typer answers."""
    return "_INFERTOOL_COMPLETE" in os.environ


def _invoke(arguments: Sequence[str]) -> int:
    if not arguments and not _completing():
        typer.echo(_start_screen())
        return 0
    result = _app()(args=arguments, standalone_mode=False, prog_name="infertool")
    status = result if isinstance(result, int) else 0
    if status == INTERRUPTED:  # some versions of typer swallow Ctrl-C
        raise KeyboardInterrupt
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return (and exit with) the documented status."""
    if arguments is None:
        open_standard_streams()
        sys.exit(_guarded(sys.argv[1:]))
    # A stop request must run the clean-up, as Ctrl-C does.
    if threading.current_thread() is threading.main_thread():
        for stop in STOPS:
            signal.signal(stop, interrupt_once)
    # Without a handler Python prints what libraries log about broken models, with tracebacks.
    logging.getLogger().addHandler(_NO_LOG)
    try:
        return _invoke(arguments)
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("INFERTOOL_DEBUG") and not isinstance(error, KeyboardInterrupt):
            raise
        return _failed(arguments, error)


def _guarded(arguments: Sequence[str]) -> int:
    """The status of a child that runs the command, also when a library ends it."""
    ended = None if _completing() else fork()
    if ended is None:
        return main(arguments)
    return ended if ended >= 0 else _failed(arguments, crash(arguments, -ended))


def _failed(arguments: Sequence[str], error: BaseException) -> int:
    status, message = _status_of(error)
    _answer_in_json(arguments, error, message, status)
    _fail(message)
    return status


def _answer_in_json(
    arguments: Sequence[str], error: BaseException, message: str, status: int
) -> None:
    """With --json stdout is one document, also when the options themselves were wrong."""
    if "--json" not in arguments or getattr(error, "evidence", None) is not None:
        return
    from infer_tool.report.write import failure_document

    command = next((a for a in arguments if a in COMMANDS), "")
    typer.echo(failure_document(command, type(error).__name__, message, status))


def _status_of(error: BaseException) -> tuple[int, str]:
    """Status and message of whatever ended a command."""
    if isinstance(error, InferError):
        return error.exit_code, str(error)
    if isinstance(error, _PARSE_ERROR):
        text: Any = error
        return 2, text.format_message()
    if isinstance(error, (typer.Abort, KeyboardInterrupt)):
        return INTERRUPTED, "interrupted; nothing was written"
    if isinstance(error, MemoryError):
        return LimitError.exit_code, f"out of memory: {error}"
    if isinstance(error, OSError):
        return 2, f"{error.filename or 'input/output'}: {error.strerror or error}"
    advice = "set INFERTOOL_DEBUG=1 for the traceback and report it"
    return InferError.exit_code, f"internal error, {type(error).__name__}: {error}; {advice}"
