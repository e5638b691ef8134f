"""report.json and report.md in a folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.files import atomic_path
from infer_tool.report.model import SCHEMA
from infer_tool.version import version

if TYPE_CHECKING:
    from pathlib import Path

    from infer_runtime.errors import InferError
    from infer_tool.report.model import Report


def to_json(report: Report) -> str:
    """The report as one JSON document."""
    return json.dumps(report.document(), indent=2, allow_nan=False)


def failure_document(command: str, error: InferError) -> str:
    """What --json prints for a command that failed before it had a report."""
    body = {
        "schema": SCHEMA,
        "tool": {"name": "infertool", "version": version()},
        "command": command,
        "passed": False,
        "error": {
            "kind": type(error).__name__,
            "message": str(error),
            "exit_code": error.exit_code,
        },
    }
    return json.dumps(body, indent=2)


def to_markdown(report: Report) -> str:
    """The report as Markdown, for a pull request or a job summary."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from infer_tool.units import show_bytes

    environment = Environment(
        loader=PackageLoader("infer_tool", "report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    environment.filters["size"] = show_bytes
    return environment.get_template("report.md.j2").render(r=report)


def write_report(report: Report, folder: Path | None) -> None:
    """Write report.json and report.md into `folder`, replacing older ones; None writes nothing."""
    if folder is None:
        return
    check_report_folder(folder)
    for name, text in (("report.json", to_json(report)), ("report.md", to_markdown(report))):
        with atomic_path(folder / name, force=True) as path:
            path.write_text(text + "\n", encoding="utf-8")


def check_report_folder(folder: Path | None) -> None:
    """Create the folder; UsageError when it cannot be one."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}; name a folder") from error
