"""`infertool verify`: do two models give the same outputs?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import MismatchError, UsageError
from infer_tool.commands.verify_layers import add_layers
from infer_tool.engines import open_engine
from infer_tool.engines.reference import ReferenceEngine
from infer_tool.evaluate import data_feeds
from infer_tool.ledger import new_report, stage
from infer_tool.report.model import OutputCheck
from infer_tool.report.write import check_report_folder
from infer_tool.steps import installed_engines, load_model, proof_feeds
from passes.compare import Difference, compare_outputs

if TYPE_CHECKING:
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
    feeds = _feeds(config, inputs)
    engines = installed_engines() if config.engine == "auto" else [config.engine]
    wanted = _reference_outputs(ui, reference, feeds)
    # An ONNX file runs as it is; what came from elsewhere runs as it was imported.
    subject = (candidate.path if candidate.kind == "onnx" else None) or candidate.model
    for name in engines:
        _compare(report, ui, config, open_engine(name, subject), name, feeds, wanted)
    if config.target_cpu is not None:
        target = ReferenceEngine(subject, target_cpu=config.target_cpu)
        _compare(report, ui, config, target, f"reference as {config.target_cpu}", feeds, wanted)
    if config.layers or config.bisect:
        add_layers(report, ui, config, reference.model, candidate.model, feeds)
    _judge(report, config)
    return report


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
    ui: Terminal, reference: Imported, feeds: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    with ui.step("run the reference", len(feeds)) as advance:
        outputs = []
        for feed in feeds:
            outputs.append(reference.reference(feed))
            advance(1)
    return outputs


def _compare(
    report: Report,
    ui: Terminal,
    config: Verify,
    engine: Engine,
    name: str,
    feeds: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
) -> None:
    worst: dict[str, Difference] = {}
    with (
        ui.step(f"run the candidate on {name}", len(feeds)) as advance,
        stage(report, f"run:{name}"),
    ):
        for feed, expected in zip(feeds, wanted, strict=True):
            got = _aligned(report, expected, engine.run(feed))
            for output, found in compare_outputs(expected, got).items():
                if output not in worst or found.max_rel > worst[output].max_rel:
                    worst[output] = found
            advance(1)
    for output, found in worst.items():
        passed = _passes(config, found)
        report.outputs.append(
            OutputCheck(
                output, name, found.max_abs, found.max_rel, found.sqnr_db, found.cosine, passed
            )
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


def _passes(config: Verify, found: Difference) -> bool:
    if config.min_sqnr is not None:
        return bool(found.sqnr_db >= config.min_sqnr)
    return bool(found.max_rel <= config.tolerance)


def _judge(report: Report, config: Verify) -> None:
    bad = [o for o in report.outputs if not o.passed]
    if not bad:
        return
    report.passed = False
    limit = (
        f"at least {config.min_sqnr:g} dB"
        if config.min_sqnr is not None
        else f"at most {config.tolerance:g} of the largest value"
    )
    worst = max(bad, key=lambda o: o.max_rel)
    error = MismatchError(
        f"{config.candidate}: output {worst.output!r} on {worst.engine} differs: max abs "
        f"{worst.max_abs:.3g}, max rel {worst.max_rel:.3g}, {worst.sqnr_db:.1f} dB; asked {limit}"
    )
    error.evidence = report
    raise error
