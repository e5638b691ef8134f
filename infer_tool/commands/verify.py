"""`infertool verify`: do two models give the same outputs?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import MismatchError, UsageError
from infer_tool.commands.verify_layers import add_layers
from infer_tool.engines import engine_kinds, open_engine
from infer_tool.engines.reference import ReferenceEngine
from infer_tool.evaluate import data_feeds
from infer_tool.first_difference import divergences, table
from infer_tool.ledger import new_report, stage
from infer_tool.output_stats import NONFINITE, OutputStats, parse_tolerances
from infer_tool.report.write import check_report_folder
from infer_tool.steps import installed_engines, load_model, proof_feeds
from passes.compare import check_outputs

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from infer_runtime import TensorInfo
    from infer_tool.config import Verify
    from infer_tool.engines import Engine
    from infer_tool.importers import Imported
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal

VERIFY_BATCH = 8
DEFAULT_SAMPLES = 64
SEEDED_BATCHES = (1, 2, 4, 8, 16)  # a ReLU hides a changed weight from a few samples


def run(config: Verify, ui: Terminal) -> Report:
    """Run both models on the same inputs and compare every output.

    Raises:
        UsageError: a path, an option or the data is wrong, or the models have other inputs.
        ModelError: a model cannot be read.
        MismatchError: an output differs by more than the tolerance.

    """
    check_report_folder(config.report)
    report = new_report("verify", config)
    reference = load_model(report, ui, config.reference, config)
    source = report.source
    candidate = load_model(report, ui, config.candidate, config)
    report.source, report.artifact = source, report.source
    inputs = Session(reference.model).inputs
    _same_inputs(config, inputs, Session(candidate.model).inputs)
    if config.nonfinite not in NONFINITE:
        raise UsageError(f"--nonfinite {config.nonfinite!r}: expected {', '.join(NONFINITE)}")
    feeds = _feeds(config, inputs)
    engines = installed_engines() if config.engine == "auto" else [config.engine]
    wanted = _reference_outputs(ui, config, reference, feeds)
    tolerances = parse_tolerances(config, wanted[0])
    trials = [Trial(name, _open(name, candidate)) for name in engines]
    if config.target_cpu is not None:
        target = ReferenceEngine(_subject(candidate), target_cpu=config.target_cpu)
        trials.append(Trial("reference", target, f"reference as {config.target_cpu}"))
    for trial in trials:
        _compare(report, ui, config, trial, feeds, wanted)
        report.outputs += [s.check(trial.label, tolerances) for s in trial.stats.values()]
    if config.layers or config.bisect:
        add_layers(report, ui, config, reference.model, candidate.model, feeds)
    bad = [t for t in trials if not all(tolerances.passes(s) for s in t.stats.values())]
    if bad:
        report.passed = False
        first = _first_difference(report, config, reference, candidate, bad[0], feeds)
        _raise(report, config, first)
    return report


@dataclass
class Trial:
    """The candidate on one engine, and how its outputs differ."""

    name: str
    engine: Engine
    label: str = ""
    stats: dict[str, OutputStats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.label = self.label or self.name


def _subject(model: Imported) -> Path | ir.Model:
    """An ONNX file runs as it is; what came from elsewhere runs as it was imported."""
    return (model.path if model.kind == "onnx" else None) or model.model


def _open(name: str, model: Imported) -> Engine:
    """An engine that reads the file's own format gets the file, the others what was imported."""
    kind = engine_kinds().get(name)
    if kind is not None and kind.reads == model.kind and model.path is not None:
        return open_engine(name, model.path)
    return open_engine(name, _subject(model))


def _same_inputs(
    config: Verify, first: tuple[TensorInfo, ...], second: tuple[TensorInfo, ...]
) -> None:
    names = [sorted(i.name for i in side) for side in (first, second)]
    if names[0] != names[1]:
        raise UsageError(
            f"{config.reference} has inputs {', '.join(names[0])}; "
            f"{config.candidate} has {', '.join(names[1])}"
        )


def _feeds(config: Verify, inputs: tuple[TensorInfo, ...]) -> list[dict[str, Any]]:
    if config.data is None:
        return proof_feeds(inputs, config.seed, config.shape, SEEDED_BATCHES)
    return data_feeds(config, inputs, VERIFY_BATCH, DEFAULT_SAMPLES)


def _reference_outputs(
    ui: Terminal, config: Verify, reference: Imported, feeds: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    run = reference.reference
    if config.reference_engine != "source":
        run = _open(config.reference_engine, reference).run
    with ui.step("run the reference", len(feeds)) as advance:
        outputs = []
        for feed in feeds:
            outputs.append(run(feed))
            advance(1)
    return outputs


def _compare(
    report: Report,
    ui: Terminal,
    config: Verify,
    trial: Trial,
    feeds: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
) -> None:
    with (
        ui.step(f"run the candidate on {trial.label}", len(feeds)) as advance,
        stage(report, f"run:{trial.label}"),
    ):
        for feed, expected in zip(feeds, wanted, strict=True):
            got = _aligned(report, expected, trial.engine.run(feed))
            check_outputs(expected, got)
            for name, value in expected.items():
                stats = trial.stats.setdefault(name, OutputStats(name, config.nonfinite))
                stats.add(value, got[name])
            advance(1)
    ignored = sum(s.ignored for s in trial.stats.values())
    if ignored:
        report.warnings.append(
            f"{ignored} values on {trial.label} are not judged: NaN or Inf in the reference"
        )


def _aligned(report: Report, expected: dict[str, Any], got: dict[str, Any]) -> dict[str, Any]:
    """Outputs of other names are compared by position, and the report says so.

    Frameworks that do not name outputs (torch.export) get names from their exporter.
    """
    if expected.keys() == got.keys() or len(expected) != len(got):
        return got
    note = f"outputs compared by position: {', '.join(expected)} with {', '.join(got)}"
    if note not in report.warnings:
        report.warnings.append(note)
    return dict(zip(expected, got.values(), strict=True))


def _first_difference(
    report: Report,
    config: Verify,
    reference: Imported,
    candidate: Imported,
    trial: Trial,
    feeds: list[dict[str, Any]],
) -> str:
    """The first value inside the graphs that is beyond the tolerance, where names match."""
    if engine_kinds()[trial.name].reads != "onnx" or trial.label != trial.name:
        return ""
    worst = max(trial.stats.values(), key=lambda s: s.max_rel)
    apart, compared = divergences(
        reference.model, candidate.model, trial.name, feeds[worst.worst_feed], config.tolerance
    )
    if not apart:
        return ""
    report.details["First differences"] = table(apart)
    first = apart[0]
    return (
        f"; of {compared} values inside both graphs, {first.value!r} of node {first.node!r} "
        f"({first.op}) is the first that differs"
    )


def _raise(report: Report, config: Verify, first: str) -> None:
    worst = max((o for o in report.outputs if not o.passed), key=lambda o: o.max_rel)
    option = f"; would pass with {worst.would_pass}" if worst.would_pass else ""
    error = MismatchError(
        f"{config.candidate}: output {worst.output!r} on {worst.engine} differs: max abs "
        f"{worst.max_abs:.3g}, max rel {worst.max_rel:.3g}, {worst.sqnr_db:.1f} dB; "
        f"asked {worst.asked}{option}{first}"
    )
    error.evidence = report
    raise error
