"""The report as files in a folder: for programs, pull requests, people and CI servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from infer_runtime.errors import UsageError
from infer_tool.files import atomic_path
from infer_tool.report.model import SCHEMA
from infer_tool.report.templates import environment
from infer_tool.version import version

if TYPE_CHECKING:
    from pathlib import Path

    from infer_tool.report.model import Report


MOST_CHARACTERS = 60_000  # GitHub's comments end at 65,536
MOST_ROWS = 25


def to_json(report: Report) -> str:
    """The report as one JSON document."""
    return json.dumps(report.document(), indent=2, allow_nan=False)


def failure_document(command: str, kind: str, message: str, status: int) -> str:
    """What --json prints for a command that failed before it had a report."""
    body = {
        "schema": SCHEMA,
        "tool": {"name": "infertool", "version": version()},
        "command": command,
        "passed": False,
        "error": {"kind": kind, "message": message, "exit_code": status},
    }
    return json.dumps(body, indent=2)


def to_markdown(report: Report) -> str:
    """The report as Markdown, for a pull request or a job summary; never longer than one takes."""
    text = environment(html=False).get_template("report.md.j2").render(r=report, most=MOST_ROWS)
    if len(text) <= MOST_CHARACTERS:
        return text
    kept = text[:MOST_CHARACTERS].rpartition("\n")[0]
    return f"{kept}\n\n... cut here: the whole report is in report.html and report.json"


def write_report(report: Report, folder: Path | None) -> None:
    """Write every form of the report into `folder`, replacing older ones; None writes nothing."""
    if folder is None:
        return
    from infer_tool.manifest import manifest, to_text
    from infer_tool.report.html import to_html
    from infer_tool.report.junit import to_junit

    check_report_folder(folder)
    forms = {
        "report.json": to_json(report),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
        "junit.xml": to_junit(report),
    }
    if (document := manifest(report)) is not None and report.passed:
        forms["manifest.json"] = to_text(document)
    for name, text in forms.items():
        with atomic_path(folder / name, force=True) as path:
            path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def check_report_folder(folder: Path | None) -> None:
    """Create the folder; UsageError when it cannot be one."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--report {folder}: {error.strerror}; name a folder") from error
