"""`infertool doctor`: what is installed, and which sources and engines work here."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING, Any

from infer_native.claims import claims
from infer_runtime.ops.onnx_fallback import can_delegate
from infer_runtime.registry import has_gradients, known_ops
from infer_tool.engines import available_engines, engine_kinds
from infer_tool.importers.formats import formats
from infer_tool.ledger import new_report, package_versions
from infer_tool.plugins import GROUPS, names
from infer_tool.report.write import check_report_folder

if TYPE_CHECKING:
    from infer_tool.config import Doctor
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal


def run(config: Doctor, ui: Terminal) -> Report:  # noqa: ARG001 - every command takes both
    """List versions, sources and engines; nothing heavy is imported."""
    check_report_folder(config.report)
    report = new_report("doctor", config)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    versions = [[name, version] for name, version in package_versions().items()]
    report.details["Environment"] = {
        "columns": ["package", "version"],
        "rows": [["machine", machine], *versions],
    }
    report.details["Sources"] = {"columns": ["source", "here", "fix"], "rows": _sources()}
    if config.formats:
        report.details["Formats"] = {
            "columns": ["source", "recognised by", "needs"],
            "rows": [
                [f.title, f.recognised, ", ".join(f.packages) or "nothing"]
                for f in formats().values()
            ],
        }
    own = len(known_ops())
    report.details["Operators"] = {
        "columns": ["operators of the reference runtime", "count"],
        "rows": [["kernels of our own", own], ["others", "by the onnx package, where it can"]],
    }
    if config.ops:
        report.details["All operators"] = {
            "columns": ["operator", "computed by", "torch, gradients"],
            "rows": _operators(),
        }
    if config.native:
        report.details["Operators as C"] = {
            "columns": ["operator", "types"],
            "rows": [[op, " ".join(types)] for op, types in claims().items()],
        }
    found = [[kind, name] for kind in GROUPS for name in names(kind)]
    if found:
        report.details["Plugins"] = {"columns": ["kind", "name"], "rows": found}
    report.details["Engines"] = {"columns": ["engine", "runs", "here", "fix"], "rows": _engines()}
    return report


def _operators() -> list[list[Any]]:
    """Kernels of our own, then what the onnx package computes."""
    import onnx

    own = known_ops()
    rows = [
        [_shown(domain, name), "own kernel", "yes" if has_gradients(domain, name) else "no"]
        for domain, name in own
    ]
    for schema in sorted(onnx.defs.get_all_schemas(), key=lambda s: (s.domain, s.name)):
        if (schema.domain, schema.name) not in own:
            delegated = can_delegate(schema.domain, schema.name)
            computed_by = "the onnx package" if delegated else "nobody: refused"
            rows.append([_shown(schema.domain, schema.name), computed_by, "no"])
    return rows


def _shown(domain: str, name: str) -> str:
    return f"{domain}::{name}" if domain else name


def _sources() -> list[list[Any]]:
    return [_row(f.title, not f.missing, f.fix) for f in formats().values()]


def _engines() -> list[list[Any]]:
    rows = []
    for name, version in available_engines().items():
        kind = engine_kinds()[name]
        fix = f"pip install 'infertool[{kind.extra}]'"
        label, here, fix = _row(f"{name} {version or ''}".strip(), version is not None, fix)
        source = formats().get(kind.reads)
        rows.append([label, source.title if source else kind.reads, here, fix])
    return rows


def _row(name: str, works: bool, fix: str) -> list[Any]:
    return [name, "yes" if works else "no", "" if works else fix]
