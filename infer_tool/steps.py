"""Steps that several commands share: import and prove, optimise, check a written file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import MismatchError, ModelError
from infer_tool.emitters.onnx import file_bytes, save_onnx
from infer_tool.engines import engines_for, open_engine
from infer_tool.files import sha256
from infer_tool.gates import apply_gates, parse_limits
from infer_tool.importers import ImportOptions, import_source
from infer_tool.importers.gate import check
from infer_tool.importers.normalise import normalise
from infer_tool.layers import layers_of
from infer_tool.ledger import append_passes, describe, set_facts, stage
from infer_tool.onnxsim import OnnxSim
from infer_tool.plugins import plugins
from infer_tool.units import parse_shape
from passes.compare import Difference, compare_outputs
from passes.default import PASSES
from passes.facts import facts, opset
from passes.feeds import random_feeds
from passes.pipeline import optimize as run_passes
from quant.binarize.functions import SIGNS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from infer_runtime import TensorInfo
    from infer_tool.config import Convert, Optimize
    from infer_tool.importers import Imported
    from infer_tool.report.model import Artifact, Report
    from infer_tool.ui import Terminal
    from passes.config import OptimizeConfig

Feeds = "Mapping[str, Any]"
DEFAULTS = ImportOptions()
PROOF_BATCHES = (1, 4)  # two shapes; several samples reach what a single one leaves at zero
QUANTISED_DB = 40.0  # 8 bits keep about 43 dB of a signal that fills half of their range
PROOF_STEPS = (1,) * 6  # of a model with states, which have the shape of the first step


def load_model(
    report: Report, ui: Terminal, source: str, options: ImportOptions = DEFAULTS
) -> Imported:
    """Import a source; write the ledger's first line and the facts of the source."""
    with ui.step(f"import {source}"), stage(report, "import") as line:
        imported = import_source(source, options)
        found = facts(imported.model)
        set_facts(line, found, found)
    line.options = {"kind": imported.kind}
    if imported.route:
        line.options["route"] = imported.route
    size = found.weight_bytes
    digest = None
    if imported.path is not None:
        size, digest = _source_bytes(imported.path, imported.kind), None
        if imported.path.is_file():
            digest = sha256(imported.path)
    described = describe(imported.model, source, imported.kind, size, digest, found)
    report.source = replace(described, opset=imported.opset or described.opset)
    return imported


def _source_bytes(path: Path, kind: str) -> int:
    """An ONNX file with its data files, a folder with all that it holds."""
    if kind == "onnx":
        return file_bytes(path)
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return sum(p.stat().st_size for p in files)


def proof_feeds(
    inputs: Sequence[TensorInfo],
    seed: int,
    shapes: Iterable[str] = (),
    batches: tuple[int, ...] = PROOF_BATCHES,
) -> list[dict[str, Any]]:
    """Seeded inputs for proofs, one for each size of a dynamic first dimension.

    A size given by `shapes` (name:1x3x224x224) wins over them.
    """
    given = dict(parse_shape(text) for text in shapes)
    names = {i.shape[0] for i in inputs if i.shape and isinstance(i.shape[0], str)}
    feeds = []
    for number, batch in enumerate(batches):
        sizes = {i.name: _batched(i, batch, names) for i in inputs if i.shape} | given
        feeds.append(random_feeds(inputs, seed + number, sizes))
    return feeds


def source_feeds(imported: Imported, seed: int, shapes: Iterable[str]) -> list[dict[str, Any]]:
    """`proof_feeds` for an imported model: samples, or the steps of one run where it has states."""
    batches = PROOF_STEPS if imported.states else PROOF_BATCHES
    return proof_feeds(Session(imported.model).inputs, seed, shapes, batches)


def _batched(info: TensorInfo, batch: int, names: set[str]) -> tuple[int, ...]:
    """Dynamic first dimensions take the batch, and others of their names: a state's second one.

    The rest is 1: other dimensions often have a smallest legal size.
    """
    assert info.shape is not None
    first, *others = info.shape
    rest = (d if isinstance(d, int) else batch if d in names else 1 for d in others)
    return (first if isinstance(first, int) else batch, *rest)


def prove_import(
    report: Report, ui: Terminal, imported: Imported, feeds: list[dict[str, Any]], tolerance: float
) -> list[dict[str, Any]]:
    """Compare the imported graph with its source framework; returns the framework's outputs.

    Where the source has states the feeds are consecutive steps, and get the states of each.
    """
    with ui.step("compare with the source framework"), stage(report, "compare") as line:
        check(imported.model, str(imported.path or imported.kind))
        session = Session(imported.model)
        wanted = run_all(partial(_step, imported, {}), feeds)
        results = run_all(session.run, feeds)
        record = worst_over(wanted, results)
        line.max_abs_error, line.sqnr_db = record.max_abs, record.sqnr_db
    line.options = {"samples": len(feeds), "tolerance": tolerance}
    what = "the imported graph differs from the source framework"
    require_equal(record, tolerance, what, is_quantised(imported.model))
    return wanted


def _step(imported: Imported, states: dict[str, Any], feed: dict[str, Any]) -> dict[str, Any]:
    """One run of the source; the states that it left before are added to the feed."""
    feed |= states
    outputs = imported.reference(feed)
    states |= {name: outputs[output] for name, output in imported.states.items()}
    return outputs


def run_all(
    run: Callable[[dict[str, Any]], dict[str, Any]], feeds: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run on made inputs; a model that fails on them often needs other sizes than 1."""
    try:
        return [run(feed) for feed in feeds]
    except ModelError as error:
        tried = ", ".join(f"{n}:{'x'.join(map(str, x.shape)) or '()'}" for n, x in feeds[0].items())
        raise ModelError(
            f"{error}; tried with {tried}: give real sizes with --shape if these are wrong"
        ) from error


def optimise(
    report: Report, ui: Terminal, model: ir.Model, config: OptimizeConfig, feeds: list[Any]
) -> ir.Model:
    """Run the exact passes and what the level adds to them; one ledger line for each."""
    if opset(model) < config.opset:
        with ui.step(f"raise the opset to {config.opset}"), stage(report, "opset") as line:
            raised = normalise(model.clone(), "the model", config.opset)
            set_facts(line, facts(model), facts(raised))
        line.options, model = {"opset": config.opset}, raised
    others = [make() for make in plugins("passes").values()]
    with ui.step("optimise"):
        result = run_passes(model, config, feeds=feeds, passes=(*PASSES, *others, OnnxSim()))
    append_passes(report, result.records)
    return result.model


def check_file(
    report: Report,
    ui: Terminal,
    path: Path,
    feeds: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
    tolerance: float,
    quantised: bool = False,
) -> None:
    """Run a written file on every engine here and compare with the source's outputs."""
    for name in installed_engines():
        with ui.step(f"verify with {name}"), stage(report, f"verify:{name}") as line:
            engine = open_engine(name, path, lean=True)
            record = worst_over(wanted, run_all(engine.run, feeds))
            line.max_abs_error, line.sqnr_db = record.max_abs, record.sqnr_db
        what = f"the written file differs from its source on {name}"
        require_equal(record, tolerance, what, quantised)


def installed_engines() -> list[str]:
    """Engines that check ONNX files here, the fastest first."""
    return list(engines_for("onnx"))


def pick_engine(name: str) -> str:
    """The engine to use for 'auto': the fastest one here."""
    return installed_engines()[0] if name == "auto" else name


def worst_over(wanted: Sequence[Mapping[str, Any]], got: Sequence[Mapping[str, Any]]) -> Difference:
    """The largest relative difference over all samples and outputs, and the smallest SQNR."""
    every = [
        difference
        for w, g in zip(wanted, got, strict=True)
        for difference in compare_outputs(w, g).values()
    ]
    worst = max(every, key=lambda d: d.max_rel)
    return replace(worst, sqnr_db=min(d.sqnr_db for d in every))


def is_quantised(model: ir.Model) -> bool:
    """Does it round values to integers, or to one bit, while it runs?"""
    return any(
        node.op_type == "QuantizeLinear" or (node.domain, node.op_type) in SIGNS
        for node in model.graph.all_nodes()
    )


def require_equal(record: Difference, tolerance: float, what: str, quantised: bool = False) -> None:
    """MismatchError when the difference is beyond the tolerance; NaN never passes.

    A quantised model may differ by single steps: engines round what lies next to a half either
    way. All such errors together must stay below the noise of the quantisation itself.
    """
    if quantised and record.sqnr_db >= QUANTISED_DB:
        return
    if not record.max_rel <= tolerance:
        raise MismatchError(
            f"{what}: largest error {record.max_abs:.3g}, {record.max_rel:.3g} of the largest "
            f"value, tolerance {tolerance:g}; no file was written"
        )


def write_verified(
    report: Report,
    ui: Terminal,
    model: ir.Model,
    config: Convert | Optimize,
    feeds: list[dict[str, Any]],
    wanted: list[dict[str, Any]],
) -> None:
    """Write `config.output` when every engine here agrees with the source and the gates pass."""
    limits = parse_limits(config)

    def check(path: Path) -> None:
        check_file(report, ui, path, feeds, wanted, config.tolerance, is_quantised(model))
        report.artifact = describe_file(model, path, config.output)
        report.layers = layers_of(model)
        apply_gates(report, limits)

    save_onnx(model, config.output, check=check, force=config.force)


def describe_file(model: ir.Model, path: Path, shown: Path) -> Artifact:
    """The facts of a model that was just written to `path` and will be called `shown`."""
    return describe(model, shown, "onnx", file_bytes(path), sha256(path))
