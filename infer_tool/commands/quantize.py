"""`infertool quantize`: lossy, measured, gated."""

from __future__ import annotations

import shlex
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from infer_runtime import Session
from infer_runtime.errors import MismatchError, UsageError
from infer_runtime.target_cpu import check_target
from infer_tool.attribution import rank_layers
from infer_tool.commands.verify_layers import OPTIONS_KEY
from infer_tool.config import DEFAULT_CALIB_SAMPLES
from infer_tool.data import open_dataset, synthetic_dataset
from infer_tool.emitters.onnx import save_onnx
from infer_tool.engines import open_engine
from infer_tool.engines.onnxruntime_kernels import deployed
from infer_tool.engines.profile import PROFILE_RUNS, node_times
from infer_tool.evaluate import evaluate, feed_batch, full_batches, source_and_result
from infer_tool.files import check_output
from infer_tool.gates import apply_gates, parse_limits
from infer_tool.layers import layers_of
from infer_tool.ledger import new_report, set_facts, stage
from infer_tool.qat import check_training, train_quantised
from infer_tool.report.write import check_report_folder
from infer_tool.search.run import search, search_limits
from infer_tool.steps import (
    describe_file,
    installed_engines,
    load_model,
    optimise,
    pick_engine,
    prove_import,
    source_feeds,
    worst_over,
)
from infer_tool.training import open_parts as training_parts
from infer_tool.training import raise_stopped
from passes.config import OptimizeConfig
from passes.facts import facts
from quant import quantize_model
from quant.config import QuantizeConfig
from quant.sparse import restore_dense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx_ir as ir

    from infer_runtime import TensorInfo
    from infer_tool.config import Quantize
    from infer_tool.data import Dataset
    from infer_tool.engines import Engine
    from infer_tool.report.model import Report
    from infer_tool.ui import Terminal
    from quant.train.loop import Training

CALIBRATION_BATCH = 4  # calibration keeps every activation of a run in reach
# Engines round differently, by a step here and there. More noise than this is a wrong kernel,
# unless quantisation itself made more: then the accuracy below says what the result is worth.
ENGINES_AGREE_DB = 20.0
BELOW_QUANTISATION_DB = 3.0
FAR_FROM_SOURCE_DB = 10.0  # a tenth of the signal's power is error
ENGINE_SAMPLES = 8
LAYER_SAMPLES = 2
TARGET_SAMPLES, TARGET_DB = 16, 0.5  # noise that a processor may add before it is said
PROFILED = ("onnxruntime", "reference")  # engines that tell the times of nodes
LITTLE_IN_INTEGERS = 0.5


def run(config: Quantize, ui: Terminal) -> Report:
    """Import, optimise, calibrate, quantise, measure, judge, write.

    Raises:
        UsageError: a path, an option or the data is wrong; no calibration data.
        ModelError: the model cannot be read.
        MismatchError: engines disagree about the result, or it has NaN where the source has none.
        GateError: a limit was missed.
        LimitError: a limit of time or memory is reached; with --train the best so far is written.

    """
    check_output(config.output, config.force)
    check_report_folder(config.report)
    search_limits(config)
    report = new_report("quantize", config)
    imported = load_model(report, ui, config.model, config)
    inputs = Session(imported.model).inputs
    check_training(config)
    _check_options(config)
    calibration, evaluation, training = _parts(config, inputs, report)
    feeds = source_feeds(imported, config.seed, config.shape)
    passes = OptimizeConfig(seed=config.seed)
    prove_import(report, ui, imported, feeds, passes.tolerance)
    restore_dense(imported.model)
    source = optimise(report, ui, imported.model, passes, feeds)
    trained = None
    if config.scheme == "auto":
        candidate = _search(report, ui, config, source, (calibration, evaluation))
    else:
        candidate, trained = _quantise(report, ui, config, source, calibration, training)

    def check(path: Path) -> None:
        report.artifact = describe_file(candidate, path, config.output)
        if "onnxruntime" in installed_engines():
            sizes = {name: value.shape for name, value in feeds[0].items()}
            report.deployed = deployed(path, candidate, sizes)
        _measure(report, ui, config, source, path, evaluation)
        if config.report is not None:
            _layers(report, config, source, candidate, path, evaluation)
        _warn(report)
        apply_gates(report, parse_limits(config))

    save_onnx(candidate, config.output, check=check, force=config.force)
    if trained is not None:
        raise_stopped(report, config, trained)
    return report


def _parts(
    config: Quantize, inputs: tuple[TensorInfo, ...], report: Report
) -> tuple[Dataset, Dataset, Dataset | None]:
    """Samples to calibrate, to measure, and to train on."""
    if not config.train:
        return (*open_parts(config, inputs, report), None)
    training, evaluation = training_parts(config, inputs)
    if config.calib is None:
        return training.subset(config.calib_samples), evaluation, training
    return open_parts(config, inputs, report)[0], evaluation, training


def open_parts(
    config: Quantize, inputs: tuple[TensorInfo, ...], report: Report
) -> tuple[Dataset, Dataset]:
    """Disjoint calibration and evaluation samples; refused when there are none."""
    if config.calib is None and config.data is None:
        raise UsageError(
            "no calibration data: give --data DATA, or --calib and --eval; "
            "--calib synthetic uses random inputs and says so in the result"
        )
    whole = config.eval or config.data
    if whole is None:
        raise UsageError("no evaluation data: give --eval DATA beside --calib")
    evaluation = open_dataset(whole, inputs, preprocess=config.preprocess)
    if config.calib == "synthetic":
        report.warnings.append("calibrated on synthetic inputs: the ranges are guesses")
        calibration = synthetic_dataset(inputs, config.calib_samples, config.seed)
    elif calib := config.calib or (config.data if config.eval else None):
        calibration = open_dataset(calib, inputs, preprocess=config.preprocess)
        calibration = calibration.subset(config.calib_samples)
    else:
        calibration, evaluation = _split(config, evaluation)
    return calibration, evaluation.subset(config.samples) if config.samples else evaluation


def _split(config: Quantize, dataset: Dataset) -> tuple[Dataset, Dataset]:
    if len(dataset) <= config.calib_samples:
        raise UsageError(
            f"{config.data}: {len(dataset)} samples leave none to evaluate after "
            f"{config.calib_samples} for calibration; lower --calib-samples"
        )
    return dataset.split(config.calib_samples, config.seed)


def _quantise(
    report: Report,
    ui: Terminal,
    config: Quantize,
    source: ir.Model,
    calibration: Dataset,
    data: Dataset | None,
) -> tuple[ir.Model, Training | None]:
    training = None
    with (
        ui.step(f"calibrate and quantise to {config.scheme}", len(calibration)) as advance,
        stage(report, "quantize") as line,
    ):
        feeds = _Feeds(source, calibration, advance)
        if data is None:
            result = quantize_model(source, feeds, config)
        else:
            result, training = train_quantised(report, ui, config, source, feeds, data)
        set_facts(line, facts(source), facts(result.model))
        line.options = {f.name: getattr(config, f.name) for f in fields(QuantizeConfig)}
        line.refusals = list(result.refusals)
        report.warnings += result.notes
        _stamp(config, result.model)
    report.coverage = result.coverage
    return result.model, training


def _search(
    report: Report, ui: Terminal, config: Quantize, source: ir.Model, parts: tuple[Dataset, Dataset]
) -> ir.Model:
    feeds = _Feeds(source, parts[0], lambda _: None)
    result = search(report, ui, config, source, feeds, parts, partial(_stamp, config))
    report.coverage = result.coverage
    return result.model


def _stamp(config: Quantize, model: ir.Model) -> None:
    """What the result says of how it was made."""
    if options := _options(config):
        model.metadata_props[OPTIONS_KEY] = options
    if config.calib == "synthetic":
        model.metadata_props["infertool.calibration"] = "synthetic"


def _options(config: Quantize) -> str:
    """The options of quantisation that differ from their defaults, as the command line has them."""
    words: list[str] = []
    for option in fields(QuantizeConfig):
        value, flag = getattr(config, option.name), f"--{option.name.replace('_', '-')}"
        if value == option.default:
            continue
        flags = option.metadata.get("flags", (flag,))
        if isinstance(value, bool):
            words += [flags[0].split("/")[0 if value else 1]]
        else:
            for one in value if isinstance(value, tuple) else (value,):
                words += [flags[0], str(one)]
    if config.calib_samples != DEFAULT_CALIB_SAMPLES:
        words += ["--calib-samples", str(config.calib_samples)]
    return shlex.join(words)


class _Feeds:
    """Calibration batches, read from the data anew as often as an algorithm asks for them."""

    def __init__(self, source: ir.Model, dataset: Dataset, advance: Callable[[int], None]) -> None:
        inputs = Session(source).inputs
        self._size = feed_batch(inputs, CALIBRATION_BATCH)
        self._fixed = any(i.shape and isinstance(i.shape[0], int) for i in inputs)
        self._dataset, self._advance = dataset, advance

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for feeds, _ in full_batches(self._dataset, self._size, self._fixed):
            yield feeds
            self._advance(len(next(iter(feeds.values()))))


def _measure(
    report: Report, ui: Terminal, config: Quantize, source: ir.Model, path: Path, data: Dataset
) -> None:
    """Engines agree about the file; accuracy on all cores; latency side by side."""
    name = pick_engine(config.engine)
    reference = open_engine(name, source, lean=True)  # one for all, and no second copy of weights
    _engines_agree(report, ui, reference, path, data)
    with stage(report, "evaluate", engine=name) as line:
        report.accuracy = evaluate(ui, reference, open_engine(name, path), data, config.metric)
        line.max_abs_error = report.accuracy.max_abs_error
        line.sqnr_db = report.accuracy.sqnr_db
    if config.scheme.endswith("-weight") and name == "onnxruntime":
        # Its default level rounds the activations of products with short weights to 8 bits.
        with stage(report, "evaluate as written", engine=name) as line:
            as_written = open_engine(name, path, optimize=False)
            report.exact = evaluate(ui, reference, as_written, data, config.metric)
            line.max_abs_error, line.sqnr_db = report.exact.max_abs_error, report.exact.sqnr_db
    if not report.accuracy.max_abs_error < float("inf"):
        raise MismatchError(
            "the quantised model gives NaN or Inf where its source does not; no file was written"
        )
    if config.target_cpu is not None:
        _as_target(report, ui, config.target_cpu, source, path, data)
    if config.runs:
        with stage(report, "latency", threads=config.threads):
            report.latency = source_and_result(ui, config, name, source, path, data)


def _check_options(config: Quantize) -> None:
    """Options about processors, and those that a search has no use for, before any work."""
    check_target(config.target_cpu)
    if config.scheme != "auto":
        return
    given = {
        "--reduce-range": config.reduce_range,
        "--rounding sequential": config.rounding == "sequential",
        "--reconstruct": config.reconstruct != "none",
        "--learn-ranges": config.learn_ranges,
        "--empirical-bias": config.empirical_bias,
    }
    for flag, on in given.items():
        if on:
            raise UsageError(f"{flag} is for static schemes, not for auto")


def _as_target(
    report: Report, ui: Terminal, target: str, source: ir.Model, path: Path, data: Dataset
) -> None:
    """A warning where the processor computes another thing than the file says."""
    size = feed_batch(Session(source).inputs, TARGET_SAMPLES)
    feeds, _ = next(iter(data.batches(size)))
    with ui.step(f"compute as {target}"), stage(report, "target-cpu", target=target) as line:
        wanted = [Session(source).run(feeds)]
        exact = worst_over(wanted, [Session(path).run(feeds)])
        found = worst_over(wanted, [Session(path, target_cpu=target).run(feeds)])
        line.max_abs_error, line.sqnr_db = found.max_abs, found.sqnr_db
    if found.sqnr_db < exact.sqnr_db - TARGET_DB:
        report.warnings.append(
            f"on {target} products saturate: {found.sqnr_db:.1f} dB instead of "
            f"{exact.sqnr_db:.1f}; --reduce-range avoids it, or --activations int8 where the "
            "engine has kernels for it"
        )


def _engines_agree(
    report: Report, ui: Terminal, reference: Engine, path: Path, data: Dataset
) -> None:
    """Two engines, one at a time, must compute the same from the file, up to how they round."""
    names = installed_engines()
    size = feed_batch(reference.inputs, ENGINE_SAMPLES)
    feeds, _ = next(iter(data.batches(size)))
    with ui.step("compare engines"), stage(report, "engines", engines=names) as line:
        outputs = {n: open_engine(n, path).run(feeds) for n in names}
        record = worst_over([outputs[names[0]]] * len(names), [outputs[n] for n in names])
        line.max_abs_error, line.sqnr_db = record.max_abs, record.sqnr_db
        loss = worst_over([reference.run(feeds)], [outputs[names[0]]])
    if not record.sqnr_db >= min(ENGINES_AGREE_DB, loss.sqnr_db + BELOW_QUANTISATION_DB):
        raise MismatchError(
            f"{' and '.join(names)} disagree about the quantised model: {record.sqnr_db:.1f} dB, "
            f"expected at least {ENGINES_AGREE_DB:g}; no file was written"
        )


def _layers(
    report: Report, config: Quantize, source: ir.Model, candidate: ir.Model, path: Path,
    data: Dataset,
) -> None:  # fmt: skip
    """Error and time of each layer on a few samples, for the report."""
    name = pick_engine(config.engine)
    feeds, _ = next(iter(data.batches(feed_batch(Session(source).inputs, LAYER_SAMPLES))))
    sizes = {key: value.shape for key, value in feeds.items()}
    with stage(report, "layers", engine=name):
        noise = rank_layers(source, candidate, [feeds])
        times = (
            node_times(name, path, config.threads, feeds, PROFILE_RUNS)
            if config.runs and name in PROFILED
            else []
        )
        report.layers = layers_of(candidate, noise, times, name, sizes)


def _warn(report: Report) -> None:
    """A result that is far from, larger or slower than its source is said so, a line each."""
    assert report.source is not None
    assert report.artifact is not None
    if report.artifact.bytes >= report.source.bytes:
        report.warnings.append(
            f"the result is larger than its source: {report.artifact.bytes} bytes, "
            f"source {report.source.bytes}"
        )
    if report.deployed and report.deployed.macs_fraction < LITTLE_IN_INTEGERS:
        found = report.deployed
        report.warnings.append(
            f"{found.engine} computes only {100 * found.macs_fraction:.0f} % of the MACs in "
            f"integer kernels; the largest that stays in float is {found.float_nodes[0]!r}"
        )
    if report.accuracy and report.accuracy.sqnr_db < FAR_FROM_SOURCE_DB:
        report.warnings.append(
            f"the outputs are far from the source's: {report.accuracy.sqnr_db:.1f} dB; try another "
            "--calibration, --exclude a layer, or gate with --max-drop"
        )
    if report.latency and report.latency[1].ratio and report.latency[1].ratio.low > 1:
        report.warnings.append(
            f"the result is slower than its source: {report.latency[1].p50_ms:.3f} ms, "
            f"source {report.latency[0].p50_ms:.3f} ms"
        )
