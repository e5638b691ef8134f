"""A recipe run: stage after stage, each measured against the source, the last one written."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from infer_runtime import Session
from infer_runtime.errors import InferError, UsageError
from infer_tool.config import Evaluated, Timing
from infer_tool.data import open_dataset
from infer_tool.emitters.onnx import save_onnx
from infer_tool.engines import open_engine
from infer_tool.evaluate import evaluate, feed_batch, latency
from infer_tool.files import check_output
from infer_tool.gates import apply_gates, parse_limits
from infer_tool.ledger import new_report
from infer_tool.options import build_config
from infer_tool.recipe.model import Recipe, Shared, shared_options, stage_commands
from infer_tool.recipe.read import read_recipe
from infer_tool.report.model import Stage, plain
from infer_tool.report.write import check_report_folder
from infer_tool.steps import describe_file, load_model, pick_engine
from infer_tool.units import show_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infer_tool.config import Run, Talk
    from infer_tool.data import Dataset
    from infer_tool.recipe.model import StageOf
    from infer_tool.report.model import Accuracy, Latency, Report
    from infer_tool.ui import Terminal

FROM_SOURCE = "distill"  # learns from the recipe's source, with the stage before as its student


@dataclass(frozen=True)
class Done:
    """A stage that ran: its file, its report, and its accuracy against the recipe's source."""

    stage: StageOf
    path: Path
    report: Report
    accuracy: Accuracy | None


def run_recipe(config: Run, path: Path, ui: Terminal) -> Report:
    """Run all stages in a folder of their own, measure, judge, write.

    Raises:
        UsageError: the recipe or a path is wrong, or data that stages learn from is all there is.
        GateError: a limit was missed, of a stage or of the result.
        InferError: what else ended a stage; its exit status stays.

    """
    recipe = read_recipe(path)
    shared = recipe.shared if config.output is None else _to(recipe.shared, config.output)
    recipe = replace(recipe, shared=shared)
    output = Path(shared.output)
    check_output(output, config.force)
    check_report_folder(config.report)
    limits = parse_limits(shared)
    planned = list(_planned(recipe))
    report = new_report("run", config)
    report.seed = shared.seed
    report.config |= {"output": str(output), "pipeline": _as_config(recipe)}
    source = load_model(report, ui, shared.source, shared).model
    data = _evaluation(shared, source)
    with TemporaryDirectory(prefix="infertool-") as folder:
        done = list(_run_stages(report, ui, recipe, planned, source, data, Path(folder)))
        result = ir.load(done[-1].path)

        def check(written: Path) -> None:
            report.artifact = describe_file(result, written, output)
            report.accuracy = done[-1].accuracy
            if shared.runs and data is not None:
                report.latency = _latency(ui, shared, source, done, written, data)
            _describe(report, done)
            apply_gates(report, limits)

        save_onnx(result, output, check=check, force=config.force)
    return report


def _to(shared: Shared, output: Path) -> Shared:
    return replace(shared, output=str(output))


def _as_config(recipe: Recipe) -> dict[str, Any]:
    stages = [{stage.command: stage.options} for stage in recipe.stages]
    shared = recipe.shared
    given = {f.name: getattr(shared, f.name) for f in fields(shared)}
    given = {name: value for name, value in given.items() if value not in (None, "", ())}
    return plain(given | {"stages": stages})  # type: ignore[no-any-return]


def _planned(recipe: Recipe) -> Iterator[Talk]:
    """The configuration of every stage, checked before any of them runs."""
    shared = recipe.shared
    for number, stage in enumerate(recipe.stages):
        kind = stage_commands()[stage.command]
        where = _where(recipe, number)
        values = shared_options(shared, kind, first=number == 0) | stage.options
        values |= {_source_option(stage): shared.source, "output": Path(shared.output)}
        values["quiet"] = True
        if issubclass(kind, Timing) and "max_latency" not in stage.options:
            values.setdefault("runs", 0)  # all are timed together at the end
        if stage.options.get("to", "onnx") != "onnx":
            raise UsageError(f"{where}: a stage writes ONNX; convert the result of the recipe")
        if issubclass(kind, Evaluated) and shared.data and not shared.eval:
            raise UsageError(
                f"{where}: learns from 'data', and nothing is left to measure on; give 'eval' too"
            )
        try:
            yield build_config(kind, values)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error


def _source_option(stage: StageOf) -> str:
    return "source" if stage.command == "convert" else "model"


def _where(recipe: Recipe, number: int) -> str:
    stage = recipe.stages[number]
    return f"{recipe.path}:{stage.line}: stage {number + 1}, {stage.command}"


def _run_stages(
    report: Report,
    ui: Terminal,
    recipe: Recipe,
    planned: list[Talk],
    source: ir.Model,
    data: Dataset | None,
    folder: Path,
) -> Iterator[Done]:
    before = recipe.shared.source
    for number, (stage, config) in enumerate(zip(recipe.stages, planned, strict=True)):
        ui.log(f"stage {number + 1} of {len(planned)}: {stage.command}")
        path = folder / f"{number + 1}-{stage.command}.onnx"
        config = _placed(config, stage, before, recipe.shared.source, path, first=number == 0)
        made = _run_stage(report, ui, config, _where(recipe, number), stage.command)
        accuracy = None
        if data is not None:
            accuracy = _accuracy(ui, recipe.shared, source, path, data)
        _append(report, f"{number + 1}.{stage.command}", made, accuracy)
        yield Done(stage, path, made, accuracy)
        before = str(path)


def _placed(
    config: Talk, stage: StageOf, before: str, source: str, path: Path, *, first: bool
) -> Talk:
    """The configuration with the files of this run."""
    makes = getattr(config, "shrink", 0) or getattr(config, "drop_blocks", 0)
    if stage.command == FROM_SOURCE and not first and not makes:
        return replace(config, model=source, student=before, output=path)  # type: ignore[call-arg]
    files: dict[str, Any] = {_source_option(stage): before, "output": path}
    return replace(config, **files)


def _run_stage(report: Report, ui: Terminal, config: Talk, where: str, command: str) -> Report:
    try:
        made: Report = import_module(f"infer_tool.commands.{command}").run(config, ui)
    except InferError as error:
        raise _of_stage(report, error, where) from error
    return made


def _of_stage(report: Report, error: InferError, where: str) -> InferError:
    """The same kind of error, which says where it was; what was found until then is evidence."""
    named = type(error)(f"{where}: {error}")
    if error.evidence is not None:
        report.stages += error.evidence.stages
        report.gates += error.evidence.gates
    report.passed = False
    named.evidence = report
    return named


def _evaluation(shared: Shared, source: ir.Model) -> Dataset | None:
    spec = shared.eval or shared.data
    if spec is None:
        return None
    data = open_dataset(spec, Session(source).inputs, preprocess=shared.preprocess)
    return data.subset(shared.samples) if shared.samples else data


def _accuracy(
    ui: Terminal, shared: Shared, source: ir.Model, path: Path, data: Dataset
) -> Accuracy:
    name = pick_engine(shared.engine)
    return evaluate(ui, open_engine(name, source), open_engine(name, path), data, shared.metric)


def _append(report: Report, name: str, made: Report, accuracy: Accuracy | None) -> None:
    """The lines of a stage, and one for the whole of it, by what it came to from the source on."""
    for line in made.stages:
        report.stages.append(replace(line, name=f"{name}/{line.name}"))
    whole = Stage(name=name, options={}, seconds=sum(line.seconds for line in made.stages))
    if accuracy is not None:
        whole.max_abs_error, whole.sqnr_db = accuracy.max_abs_error, accuracy.sqnr_db
        whole.options = {"metric": accuracy.metric, "drop": accuracy.drop}
    report.stages.append(whole)
    report.coverage = made.coverage or report.coverage
    report.deployed = made.deployed or report.deployed
    report.layers = made.layers or report.layers
    report.candidates = made.candidates or report.candidates
    report.warnings += [f"{name}: {text}" for text in made.warnings]


def _latency(
    ui: Terminal,
    shared: Shared,
    source: ir.Model,
    done: list[Done],
    written: Path,
    data: Dataset,
) -> list[Latency]:
    """The source, each stage and the result, in turns."""
    name = pick_engine(shared.engine)
    files: dict[str, Any] = {"source": source}
    files |= {f"{n}.{d.stage.command}": d.path for n, d in enumerate(done[:-1], start=1)}
    files["result"] = written
    engines = {n: open_engine(name, m, threads=shared.threads) for n, m in files.items()}
    feeds, _ = next(iter(data.batches(feed_batch(engines["source"].inputs, 1))))
    return latency(ui, engines, feeds, shared.threads, shared.runs)


def _describe(report: Report, done: list[Done]) -> None:
    """One row for each stage: what it cost and gained, all against the recipe's source."""
    assert report.source is not None
    times: list[Latency | None] = [*report.latency[1:]] or [None] * len(done)
    rows = [["source", show_bytes(report.source.bytes), f"{report.source.macs:,}", "", "", "", ""]]
    for number, (stage, row) in enumerate(zip(done, times, strict=True), start=1):
        made = stage.report.artifact
        assert made is not None
        seconds = sum(line.seconds for line in stage.report.stages)
        rows.append(
            [
                f"{number}. {stage.stage.command}",
                show_bytes(made.bytes),
                f"{made.macs:,}",
                *_scores(stage.accuracy),
                "" if row is None or row.ratio is None else f"{row.ratio.median:.3f}",
                f"{seconds:.1f}",
            ]
        )
    columns = ["stage", "size", "MACs", "drop", "SQNR dB", "time / source", "seconds"]
    report.details["Pipeline"] = {"columns": columns, "rows": rows}


def _scores(accuracy: Accuracy | None) -> list[str]:
    if accuracy is None:
        return ["", ""]
    drop = "" if accuracy.drop is None else f"{accuracy.drop:.4f}"
    return [drop, f"{accuracy.sqnr_db:.1f}"]
