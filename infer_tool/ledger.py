"""The ledger: what each stage cost and what it gained, written by every stage that ran."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from infer_tool.options import command_line
from infer_tool.report.model import Artifact, Report, Stage, plain
from passes.facts import Facts, facts, opset

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import onnx_ir as ir

    from infer_tool.config import Talk
    from passes.rounds import PassRecord


def new_report(command: str, config: Talk) -> Report:
    """An empty report that holds the effective configuration and the versions in use."""
    values = {f.name: plain(getattr(config, f.name)) for f in fields(config)}
    return Report(
        command=command,
        config=values,
        seed=values.get("seed"),
        versions=package_versions(),
        reproduce=command_line(command, config),
    )


# What shapes a result, besides Python.
PACKAGES = (
    "infertool", "numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "openvino",
    "ai-edge-litert", "torch", "tensorflow",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of the packages that shape a result, where installed; imports none of them."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@contextmanager
def stage(
    report: Report, name: str, before: Facts | None = None, **options: Any
) -> Iterator[Stage]:
    """Time a stage and append its line; the body sets the facts after it with `set_facts`."""
    line = Stage(name=name, options=plain(options))
    start = time.perf_counter()
    yield line
    line.seconds = time.perf_counter() - start
    line.peak_memory_bytes = peak_memory()
    if before is not None and line.nodes is None:
        set_facts(line, before, before)
    report.stages.append(line)


def set_facts(line: Stage, before: Facts, after: Facts) -> None:
    """Record nodes, bytes, parameters and MACs before and after."""
    line.nodes = (before.nodes, after.nodes)
    line.bytes = (before.weight_bytes, after.weight_bytes)
    line.parameters = (before.parameters, after.parameters)
    line.macs = (before.macs, after.macs)


def append_passes(report: Report, records: tuple[PassRecord, ...]) -> None:
    """One line for each pass that ran."""
    for record in records:
        report.stages.append(
            Stage(
                name=record.name,
                options={"changes": record.changes},
                seconds=record.seconds,
                nodes=record.nodes,
                bytes=record.bytes,
                parameters=record.parameters,
                max_abs_error=record.max_abs_error,
                sqnr_db=record.sqnr_db,
                refusals=list(record.refusals),
                fired=list(record.fired),
            )
        )


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe(
    model: ir.Model,
    path: Path | str,
    kind: str,
    size: int,
    digest: str | None,
    found: Facts | None = None,
) -> Artifact:
    """The facts of a model, which may be known already, and of the file it is in."""
    found = found or facts(model)
    return Artifact(
        path=str(path),
        format=kind,
        sha256=digest,
        bytes=size,
        nodes=found.nodes,
        parameters=found.parameters,
        macs=found.macs,
        opset=opset(model),
    )
