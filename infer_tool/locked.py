"""`infertool run --locked`: make a result again, and compare its bytes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from infer_runtime.errors import MismatchError, UsageError
from infer_tool.ledger import new_report, package_versions
from infer_tool.manifest import changed_inputs, configuration, digest, read_manifest
from infer_tool.options import build_config
from infer_tool.report.write import check_report_folder

if TYPE_CHECKING:
    from infer_tool.config import Run
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal


def repeat(config: Run, path: Path, ui: Terminal) -> Report:
    """Repeat the command of a manifest in a folder of its own; nothing is kept but the verdict.

    Raises:
        UsageError: the manifest or one of its inputs is not what it was.
        MismatchError: the bytes are others; names the versions that changed.

    """
    from infer_tool.config import COMMANDS

    check_report_folder(config.report)
    document = read_manifest(path)
    command = document["command"]
    if command not in COMMANDS or "output" not in document["config"]:
        raise UsageError(f"{path}: {command!r} is no command that writes a model")
    if changed := changed_inputs(document):
        raise UsageError(f"{path}: not the same input as then: {', '.join(changed)}")
    report = new_report("run", config)
    values = configuration(COMMANDS[command], document["config"])
    target = Path(values["output"])
    with TemporaryDirectory(prefix="infertool-") as folder:
        values["output"] = Path(folder) / target.name
        made: Report = import_module(f"infer_tool.commands.{command}").run(
            build_config(COMMANDS[command], values), ui
        )
        files = {name: Path(folder) / Path(name).name for name in document["outputs"]}
        got = {name: digest(path) if path.exists() else "" for name, path in files.items()}
    report.source, report.stages = made.source, made.stages
    _compare(report, document, got)
    return report


def _compare(report: Report, document: dict[str, Any], got: dict[str, str]) -> None:
    wanted: dict[str, str] = document["outputs"]
    rows = [[n, w, got[n], "same" if got[n] == w else "OTHER"] for n, w in wanted.items()]
    report.details["Bytes"] = {"columns": ["file", "sha256 then", "sha256 now", ""], "rows": rows}
    others = [name for name, digest_then in wanted.items() if got[name] != digest_then]
    if not others:
        return
    now = package_versions()
    then: dict[str, str] = document.get("versions", {})
    changed = [
        f"{name} {then.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    report.passed = False
    because = f"; versions changed: {', '.join(changed)}" if changed else "; with the same versions"
    error = MismatchError(f"{', '.join(others)}: not the same bytes as then{because}")
    error.evidence = report
    raise error
